package sim

import (
	"slices"
	"time"
)

// This file judges what a process could know. doc.go of package elector says what is not promised; in short: whoever has
// not seen what a holder promised last, before somebody outside the election changed the Lease, cannot keep to it.

// known is the last write of another process that a process has been shown, as it was written.
type known struct {
	author int32
	write  uint64
	at     time.Duration
	held   uint64 // the last one that held the Lease
}

// A change is one of the Lease by somebody outside the election.
type change struct {
	kind    changeKind
	version uint64
	at      time.Duration
}

type changeKind uint8

const (
	edited    changeKind = iota // but not the times back to older ones
	rewritten                   // an older state was put back
	deleted
	restored
	freed // an edit just like a release
)

// sees takes in that a process is shown a record.
func (p *process) sees(r *record) {
	if r.Version < p.maxSeen {
		return // it was overtaken
	}
	p.maxSeen = r.Version
	if !r.intact || r.author == p.index {
		return
	}
	k := known{author: r.author, write: r.write, at: p.world.now}
	if r.Holder != "" {
		k.held = r.write
	}
	for i := range p.knows {
		if p.knows[i].author == r.author {
			if k.write > p.knows[i].write {
				k.held = max(k.held, p.knows[i].held)
				p.knows[i] = k
			}
			return
		}
	}
	const most = 8
	if len(p.knows) == most {
		p.knows = append(p.knows[:0], p.knows[1:]...)
	}
	p.knows = append(p.knows, k)
}

// knew is the last write of another process that a process had been shown by then, 0 for none.
func (p *process) knew(author int32, by time.Duration) uint64 {
	for _, k := range p.knows {
		if k.author == author && k.at <= by {
			return k.write
		}
	}
	return 0
}

// outside notes a change by somebody outside the election.
func (w *world) outside(kind changeKind) {
	w.changes = append(w.changes, change{kind, w.server.version, w.now})
}

// excused is why doc.go does not promise that b, which has won after a, or has gone on by a write after it, keeps away from
// a; "" if it is promised. What b knew by then counts.
func (w *world) excused(a, b *served, by applied, then time.Duration) string {
	if w.afterCopy(a, b) {
		return "copied"
	}
	last, won := a.p.applied.version, by.version
	if last > won {
		last = a.win.version
	}
	between, byHand := 0, false
	for _, c := range w.changes {
		if c.version <= last || c.version > won {
			continue
		}
		between++
		byHand = byHand || c.kind == edited || c.kind == rewritten
		if c.kind == freed {
			return "freed by an edit"
		}
	}
	knew := b.p.knew(a.p.index, then)
	switch {
	case w.straddles(a.p.applied) || w.straddles(by):
		return "a write was on its way while the API was restored"
	case between == 0:
		return ""
	case byHand && w.afterNewcomer(a, last, won):
		return "after a newcomer to an edited Lease"
	case w.afterUnseen(a, b, last, won):
		return "a release by one who won on a Lease that had come back, and was not seen"
	case knew >= last:
		return ""
	case knew < a.win.version:
		return "a newcomer to the term"
	case w.soleEdit(knew, won):
		return ""
	default:
		return "missed the last renewal before a change from outside"
	}
}

// written is a write of a process that the server has taken.
type written struct {
	p *process
	applied
}

// remember keeps the last writes.
func (w *world) remember(p *process, a applied) {
	const most = 512
	if len(w.writes) == most {
		w.writes = append(w.writes[:0], w.writes[most/2:]...)
	}
	w.writes = append(w.writes, written{p, a})
}

// afterNewcomer reports whether somebody who could not know of a, or had missed its last renewal, has written in between:
// what that leaves behind, be it a release, others may believe, if it is the Lease that a had. In one that was made anew, or
// has come back, they may not.
func (w *world) afterNewcomer(a *served, from, to uint64) bool {
	for i := len(w.writes) - 1; i >= 0; i-- {
		if c := &w.writes[i]; c.version > from && c.version < to && c.p != a.p && c.p.knew(a.p.index, c.taken) < from {
			return true
		}
	}
	return false
}

// afterUnseen reports whether the server was restored in between, somebody who could not know of a has won then, and b has
// seen nothing of that one but the release: b takes it for that of a.
func (w *world) afterUnseen(a, b *served, from, to uint64) bool {
	i := slices.IndexFunc(w.changes, func(c change) bool { return c.kind == restored && c.version > from && c.version <= to })
	if i < 0 {
		return false
	}
	return slices.ContainsFunc(w.writes, func(c written) bool {
		seen := slices.ContainsFunc(b.p.knows, func(k known) bool { return k.author == c.p.index && k.held > from })
		return c.version > from && c.version < to && c.p != a.p && c.p != b.p && c.p.knew(a.p.index, c.taken) < from && !seen
	})
}

// soleEdit reports whether the only change from outside between two versions is an edit or a deletion. Then whoever has
// seen the term before binds itself for as long as its holder says, though it missed the last renewal.
func (w *world) soleEdit(from, to uint64) bool {
	n, sole := 0, false
	for _, c := range w.changes {
		if c.version > from && c.version <= to {
			n++
			sole = c.kind == edited || c.kind == deleted
		}
	}
	return n == 1 && sole
}

// straddles reports whether the server was restored while a write was on its way.
func (w *world) straddles(a applied) bool {
	for _, c := range w.changes {
		if c.kind == restored && a.sent < c.at && a.taken >= c.at {
			return true
		}
	}
	return false
}

// restoredSince reports whether the server was restored between two wins, so that their tokens do not compare, or while one
// of them was on its way.
func (w *world) restoredSince(a, b applied) bool {
	for _, c := range w.changes {
		if c.kind == restored && (c.at >= min(a.sent, b.sent)) {
			return true
		}
	}
	return false
}
