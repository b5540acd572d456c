package elector

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Deaths says which processes have ended, so that nobody waits for the Lease of a holder that is dead (S13). Package
// kubelet implements it. Its methods may be called from any goroutine.
type Deaths interface {
	// Leave leaves a note that Watch shows to others once this process has ended, and not before. It takes the place of
	// the note that was left before for the same Lease. An error costs no more than the proof.
	Leave(lease types.NamespacedName, note string) error

	// Watch calls ended with all notes that are known of processes that have ended and may have been the holder: soon
	// after it was called, and again whenever they change. A note may be part of a longer text. Watch returns when ctx has
	// ended, or an error if it cannot see changes. It is then called again: after a minute, or each second once a renewal
	// of the holder is late.
	Watch(ctx context.Context, holder string, ended func(notes []string)) error
}

const (
	// maxNoted is how many writes a note names: those that may be under way, and the last that won.
	maxNoted = 4

	// leaveLimit is how long a write to the Lease waits for its note. A note that comes later is as true.
	leaveLimit = 100 * time.Millisecond

	watchAgain     = time.Minute // after an error of Watch
	watchAgainLate = time.Second // the same, while a renewal is late
)

// deaths is what a candidate makes of Options.Deaths. It decides nothing: it is told what the candidate writes and sees,
// and gives the terms of which it has found that the process has ended. nil is that of a candidate without Options.Deaths.
type deaths struct {
	source Deaths
	lease  types.NamespacedName
	log    logBeside
	ctx    context.Context

	// Of this process.
	marks []mark       // what its note names
	notes chan leaving // nil until there is one

	// Of the holder.
	term   heldTerm           // who is watched; the zero value for nobody
	cancel context.CancelFunc // ends that
	terms  chan heldTerm      // the last that was told
	found  chan mark
}

// leaving is a note that is to be left; done is closed then.
type leaving struct {
	note string
	done chan struct{}
}

// heldTerm is a term of the holder. From late on, when a renewal should have come, until it expires, Watch is called
// again sooner.
type heldTerm struct {
	mark
	late, expires time.Time
}

func newDeaths(ctx context.Context, log logBeside, source Deaths, lease types.NamespacedName) *deaths {
	if source == nil {
		return nil
	}
	return &deaths{source: source, lease: lease, log: log, ctx: ctx, found: make(chan mark)}
}

// record adds what a write that may win the Lease says to this process's note, before the write is sent. It returns when
// the note was left, and after leaveLimit at the latest.
func (d *deaths) record(m mark) {
	if d == nil || slices.Contains(d.marks, m) {
		return // a repetition
	}
	d.leave(append(slices.Clone(d.marks[max(0, len(d.marks)-maxNoted+1):]), m))
}

// won takes all but the last write out of the note: that of the term that begins.
func (d *deaths) won() {
	if d != nil && len(d.marks) > 1 {
		d.leave(d.marks[len(d.marks)-1:])
	}
}

func (d *deaths) leave(marks []mark) {
	d.marks = marks
	if d.notes == nil {
		d.notes = make(chan leaving, 1)
		go d.write(d.notes)
	}
	select {
	case <-d.notes: // one that is out of date, and was not begun
	default:
	}
	n := leaving{note: noteOf(d.lease, marks), done: make(chan struct{})}
	d.notes <- n
	limit := time.NewTimer(leaveLimit)
	defer limit.Stop()
	select {
	case <-n.done:
	case <-limit.C:
	}
}

// write leaves notes, beside the loop: it may hang.
func (d *deaths) write(notes <-chan leaving) {
	failed := false
	for n := range notes {
		err := d.source.Leave(d.lease, n.note)
		if err != nil && !failed {
			d.log.Info("Nobody will learn from Options.Deaths that this process has ended: after a crash its lease has to expire", "err", err.Error())
		}
		failed = err != nil
		close(n.done)
	}
}

// noteOf names terms by as few bytes as possible: the place for notes is small, and one process may lead many Leases.
func noteOf(lease types.NamespacedName, marks []mark) string {
	var words []string
	for _, m := range marks {
		sum := sha256.Sum256([]byte(lease.String() + "\n" + m.Identity + "\n" + strconv.FormatInt(m.AcquireTime.UnixMicro(), 10)))
		words = append(words, base64.RawURLEncoding.EncodeToString(sum[:16]))
	}
	return strings.Join(words, " ")
}

// follow is told what the record says: who holds the Lease in which term, from when its renewal is late, and when it
// expires. "" is nobody, or nobody whose death would change anything. It does not wait.
func (d *deaths) follow(t heldTerm) {
	if d == nil || t == d.term {
		return
	}
	if t.Identity != d.term.Identity {
		d.unfollow()
		if t.Identity == "" {
			return
		}
		var ctx context.Context
		ctx, d.cancel = context.WithCancel(d.ctx)
		d.terms = make(chan heldTerm, 1)
		go d.watch(ctx, t.Identity, d.terms)
	}
	d.term = t
	select {
	case <-d.terms: // one that has not been read
	default:
	}
	d.terms <- t
}

func (d *deaths) unfollow() {
	if d.cancel != nil {
		d.cancel()
	}
	d.term, d.cancel = heldTerm{}, nil
}

// results is where the terms arrive whose process has ended. One may arrive after the record has changed.
func (d *deaths) results() <-chan mark {
	if d == nil {
		return nil
	}
	return d.found
}

// stop ends what was begun. The note stays.
func (d *deaths) stop() {
	if d == nil {
		return
	}
	d.unfollow()
	if d.notes != nil {
		close(d.notes)
		d.notes = nil
	}
}

// watch finds out whether the holder's process has ended. Notes and the record come in any order.
func (d *deaths) watch(ctx context.Context, holder string, terms <-chan heldTerm) {
	notes, broken := make(chan []string), make(chan error, 1)
	call := func() {
		broken <- d.source.Watch(ctx, holder, func(n []string) {
			select {
			case notes <- slices.Clone(n):
			case <-ctx.Done():
			}
		})
	}
	go call()
	var term heldTerm
	var known []string
	var brokenSince time.Time // zero while Watch has not returned
	var told error
	var proven mark
	again := time.NewTimer(0)
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case term = <-terms:
		case known = <-notes:
		case err := <-broken:
			brokenSince = time.Now()
			if told == nil && err != nil && ctx.Err() == nil {
				told = err
				d.log.Info("Whether the holder has died cannot be watched; it is looked up when a renewal is late", "holder", holder, "err", err.Error())
			}
		case <-again.C:
			brokenSince = time.Time{}
			go call()
		}
		if !brokenSince.IsZero() {
			again.Reset(time.Until(term.watchAgain(brokenSince)))
		}
		if proven != term.mark && term.standsIn(d.lease, known) {
			proven = term.mark
			select {
			case d.found <- proven:
			case <-ctx.Done():
			}
		}
	}
}

// watchAgain is when to call Watch again that has returned at since.
func (t heldTerm) watchAgain(since time.Time) time.Time {
	at, soon := since.Add(watchAgain), since.Add(watchAgainLate)
	if soon.Before(t.late) {
		soon = t.late
	}
	if soon.Before(at) && soon.Before(t.expires) {
		return soon
	}
	return at
}

// standsIn reports whether one of the notes names the term.
func (t heldTerm) standsIn(lease types.NamespacedName, notes []string) bool {
	if t.Identity == "" || t.AcquireTime.IsZero() || t.AcquireTime.UnixMicro() == 0 {
		return false // a record without them could be anybody's
	}
	word := noteOf(lease, []mark{t.mark})
	return slices.ContainsFunc(notes, func(n string) bool { return slices.Contains(strings.Fields(n), word) })
}
