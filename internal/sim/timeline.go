package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A note is one line of the timeline. It is kept as it is, and made into words only if the run fails.
type note struct {
	at      time.Duration
	kind    noteKind
	who     int32
	a, b, c int64
	name    string
}

type noteKind uint8

const (
	noteEvent noteKind = iota
	noteEffect
	noteServed
	noteFault
	noteJoins
	noteGone
	noteBegins
	noteEnds
	noteQuits
	noteCtxEnds
	noteSleeps
	noteWakes
	noteSuspended
	noteResumed
	noteCopied
	noteExcused
)

// timelineLength is how many notes are kept. A power of two.
const timelineLength = 512

// A timeline has the last notes, and a hash of all.
type timeline struct {
	notes [timelineLength]note
	count uint64
	hash  uint64
}

func (w *world) note(kind noteKind, who int32, a, b, c int64, name string) {
	w.notes[w.count%timelineLength] = note{w.now, kind, who, a, b, c, name}
	w.count++
	h := w.hash
	for _, n := range [...]uint64{uint64(w.now), uint64(kind)<<32 | uint64(uint32(who)), uint64(a), uint64(b), uint64(c), uint64(len(name))} {
		h = (h ^ n) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	w.hash = h
}

// Timeline is the end of what has happened, in words.
func (r Result) Timeline(lines int) string {
	w := r.world
	var b strings.Builder
	n := min(uint64(lines), w.count, timelineLength)
	for i := w.count - n; i < w.count; i++ {
		l := &w.notes[i%timelineLength]
		who := "-"
		if int(l.who) < len(w.processes) {
			who = w.processes[l.who].name()
		}
		fmt.Fprintf(&b, "%16v %-9s %s\n", l.at.Round(time.Microsecond), who, w.words(l))
	}
	return b.String()
}

var eventNames = [...]string{
	protocol.Tick: "tick", protocol.Left: "has left", protocol.Answered: "answered", protocol.WatchOpened: "watch opened",
	protocol.WatchShowed: "watch showed", protocol.WatchGone: "watch showed a deletion", protocol.WatchEnded: "watch ended",
	protocol.Health: "health", protocol.Yield: "yield", protocol.Proven: "proven", protocol.Died: "died", protocol.Stop: "stop",
	protocol.StepDown: "step down", protocol.Returned: "the callback has returned", protocol.Resign: "resign", protocol.Campaign: "campaign",
}

var effectNames = [...]string{
	protocol.Send: "send", protocol.Cancel: "cancel", protocol.Suspect: "suspect", protocol.Watch: "open watch", protocol.Unwatch: "close watch",
	protocol.AskYield: "ask yield", protocol.BeginTerm: "BEGIN TERM", protocol.RenewTerm: "renew term", protocol.LeaseMissing: "the Lease is missing",
	protocol.LoseTerm: "LOSE TERM", protocol.SuspendTerm: "SUSPEND TERM", protocol.ResumeTerm: "RESUME TERM", protocol.StopCallback: "STOP CALLBACK",
	protocol.LetGo: "let go", protocol.ForgetProof: "forget proof", protocol.PutsBack: "puts back", protocol.SawHolder: "saw holder",
	protocol.SawNamesake: "saw namesake", protocol.SawOwnName: "saw own name", protocol.Trouble: "trouble", protocol.NoTrouble: "no trouble",
	protocol.NoWatch: "no watch", protocol.WatchAgain: "watch again",
}

var outcomeNames = [...]string{"OK", "missing", "conflict", "refused", "unanswered", "failed"}

func (w *world) words(l *note) string {
	switch l.kind {
	case noteEvent:
		s := fmt.Sprintf("  ← %s #%d", eventNames[l.a], l.b)
		if k := protocol.EventKind(l.a); k == protocol.Answered || k == protocol.WatchShowed || k == protocol.WatchGone {
			s += fmt.Sprintf(" %s rv=%d %q", outcomeNames[l.c>>56], l.c&(1<<56-1), l.name)
		}
		return s
	case noteEffect:
		s := fmt.Sprintf("  → %s #%d", effectNames[l.a], l.b)
		if l.c != 0 {
			s += fmt.Sprintf(" %q renewed ..%06d", l.name, l.c%1e6)
		}
		return s
	case noteServed:
		return fmt.Sprintf("SERVER: %s rv=%d %q (asked for renewed ..%06d)", outcomeNames[l.a], l.b, l.name, l.c%1e6)
	case noteFault:
		return fmt.Sprintf("FAULT %d: %s; the Lease is rv=%d %q", l.b, FaultKind(l.a), l.c, l.name)
	case noteJoins:
		return fmt.Sprintf("JOINS as %s, lease %ds, clock %d/1024, drain limit %ds", l.name, l.b, l.a, l.c)
	case noteGone:
		return [...]string{"HAS ENDED", "IS KILLED"}[l.a]
	case noteBegins:
		return fmt.Sprintf("BEGINS, term %d", l.a)
	case noteEnds:
		return fmt.Sprintf("ENDS, term %d", l.a)
	case noteQuits:
		return "returns by itself"
	case noteCtxEnds:
		return fmt.Sprintf("ctx ends: reason %d, holder %q", l.a, l.name)
	case noteSleeps:
		return fmt.Sprintf("SLEEPS for %v, monotonic clock still: %v, inside: %v", time.Duration(l.a), l.b == 1, l.c == 1)
	case noteWakes:
		return fmt.Sprintf("WAKES, valid: %v, inside: %v", l.a == 1, l.b == 1)
	case noteCopied:
		return fmt.Sprintf("IS A COPY of #%d", l.a)
	case noteSuspended:
		return fmt.Sprintf("IS SUSPENDED, term %d", l.a)
	case noteResumed:
		return fmt.Sprintf("IS RESUMED, term %d", l.a)
	default:
		return fmt.Sprintf("two are inside, excused: %s (with #%d)", l.name, l.a)
	}
}
