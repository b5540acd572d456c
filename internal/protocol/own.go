package protocol

import "slices"

// own is what a candidate has written itself: the only ground on which it may call a Lease its own (S5).
type own struct {
	wrote       Record  // the last write known to have been applied, as it was answered; zero for none
	sent        Instant // just before that write left
	unconfirmed []doubt // writes on the record as last seen that may or may not have been applied
	over        []Mark  // terms known to be over: its own last one, and those of dead processes (S5, S12)
	dead        []Mark  // terms whose processes have ended, as their kubelet says (S13)
	provenAt    Instant // when that was last said
	past        []Mark  // terms after which another record was seen: nothing proves them dead (S13)
	times       []int64 // renewTimes of the last writes that were sent, applied or not: another one is not its own (S5)
	suspended   bool    // the term has no authority at present, and others may have led unseen (S14)
	overtaken   bool    // another holder was seen in this term: whatever follows is not ours (S6)
	adopted     int     // writes in a row on top of a win of this candidate that it could not lead on
	unfit       bool    // this replica is not fit to lead (L6)

	// After StepDown, until sitOut, the Lease is left to others, unless another term than the one that began at gaveUp
	// was seen since.
	sitOut Instant
	gaveUp int64 // acquireTime
}

// A doubt is a write whose answer has not come. sent is just before it was first handed out: which of its repetitions is
// applied is not known.
type doubt struct {
	Claim
	sent Instant
}

// serving reports whether a callback runs.
func (p Phase) serving() bool { return p == Leading || p == Draining }

// owns reports whether the record is this candidate's by a write of its own, even if somebody has edited it since. A
// Lease that is missing or blank is still the leader's to put back.
func (w *own) owns(o *seen, phase Phase, identity string) bool {
	c := o.record.Claim
	switch {
	case w.overtaken:
		return false
	case o.missing():
		return !w.suspended
	case c.Holder != identity && c.Holder != "":
		return false
	case w.hasWritten(c):
		return true
	case c.Holder == "":
		return false
	}
	// Our name, with times that we did not write so. While the callback runs, nobody else of our name can have won the
	// Lease, so it is enough that the record comes from our term, or has no times at all. At any other time two replicas of
	// one name, whose times differ in the digits that were cut off, could be taken for each other; and while the term has no
	// authority, somebody else may have won unseen.
	timeless := c.Acquired == 0 && c.Renewed == 0
	return phase.serving() && !w.suspended && (timeless || sameTerm(c, w.wrote.Claim) || slices.ContainsFunc(w.unconfirmed, func(d doubt) bool { return sameTerm(c, d.Claim) }))
}

// hasWritten reports whether c is the last write known to have been applied, or one in doubt, but for what others edit.
func (w *own) hasWritten(c Claim) bool {
	return w.wrote.Renewed != 0 && sameWrite(c, w.wrote.Claim) || w.mayHaveWritten(c)
}

// maxAdopted is how often a standby tries to make a win in doubt certain. One that never hears a reply would keep the
// Lease from all others otherwise, and not lead itself.
const maxAdopted = 3

// mayHaveWritten reports whether c is a write of this candidate whose reply was lost.
func (w *own) mayHaveWritten(c Claim) bool {
	return slices.ContainsFunc(w.unconfirmed, func(d doubt) bool { return sameWrite(c, d.Claim) })
}

// isOver reports whether the record is of a term that is known to be over.
func (w own) isOver(o seen) bool {
	c := o.record.Claim
	return o.exists && c.Holder != "" && c.Acquired != 0 && slices.Contains(w.over, c.term())
}

// isDead reports whether the record is of a term whose process has ended. One that has come back proves nothing: somebody
// may have led since.
func (w own) isDead(o seen) bool {
	return o.exists && !o.back && o.record.Holder != "" && slices.Contains(w.dead, o.record.term()) && !slices.Contains(w.past, o.record.term())
}

// maxMarks is how many terms that are past, or whose processes have ended, a candidate remembers.
const maxMarks = 100

// maxTimes is how many of its own renewTimes a candidate remembers: those of a minute, and of more where it renews less often.
const maxTimes = 30

// keep adds one to the last of a list.
func keep[T comparable](list []T, one T, most int) []T {
	if slices.Contains(list, one) {
		return list
	}
	return append(slices.Clone(list[max(0, len(list)-most+1):]), one)
}

// saw takes in that a newer record was seen: a PUT on the record before can no longer be applied, and a POST, which can if
// the newer record is deleted, does not count as a win any more (S6). So the only doubt that stays is about a write that is
// now seen to have been applied.
func (w *own) saw(before, o seen, phase Phase, identity string) {
	ours := w.owns(&o, phase, identity)
	w.overtaken = phase != StandingBy && !ours
	w.unconfirmed = slices.DeleteFunc(w.unconfirmed, func(d doubt) bool { return !o.exists || !sameWrite(o.record.Claim, d.Claim) })
	if phase == StandingBy && !ours {
		w.wrote, w.sent, w.adopted = Record{}, Instant{}, 0 // what it proved is over
	}
	// Once somebody else has written the Lease, be it a copy of the process that goes on with its term (S5), that term proves
	// nothing any more, even if its record comes back.
	if o.exists && (!w.isOver(o) || !ours && o.renews(before) && !slices.Contains(w.times, o.record.Renewed)) {
		w.over = nil
	}
	if last := before.record.term(); last.Holder != "" && (!o.exists || o.record.term() != last) {
		w.past = keep(w.past, last, maxMarks)
	}
	if o.exists && o.record.Acquired != w.gaveUp {
		w.sitOut = Instant{} // another term has begun since: nothing to sit out any more
	}
}

// sending takes in that the write c, decided on o, is about to be sent: from here on it may be applied, whatever becomes of
// the reply. A watch event may even show it first.
func (w *own) sending(o seen, phase Phase, do action, c Claim, now Instant) {
	if do == acquire && o.exists && o.record.Holder == c.Holder && w.owns(&o, phase, c.Holder) {
		w.adopted++
	}
	w.times = keep(w.times, c.Renewed, maxTimes)
	if !w.mayHaveWritten(c) {
		w.unconfirmed = append(w.unconfirmed, doubt{c, now})
	}
}

// applied takes in that the write c of its own, sent at sent, is known to have been applied, and to have resulted in r.
// Another write may be under way, on a newer record: that one stays unconfirmed.
func (w *own) applied(c Claim, r Record, sent Instant) {
	w.wrote, w.sent = r, sent
	w.unconfirmed = slices.DeleteFunc(w.unconfirmed, func(d doubt) bool { return sameWrite(d.Claim, c) })
}

// seenApplied returns when a write was first sent that the record shows to have been applied although its reply has not
// come, or was lost: the record is just what it says. It counts from then (S1). It is not ok with any other record, or
// when nothing is gained by it.
func (w own) seenApplied(o seen) (sent Instant, ok bool) {
	i := slices.IndexFunc(w.unconfirmed, func(d doubt) bool { return d.Claim == o.record.Claim })
	if i < 0 || w.overtaken || !o.exists || !w.unconfirmed[i].sent.After(w.sent) {
		return Instant{}, false
	}
	return w.unconfirmed[i].sent, true
}

// afterwards is with what a candidate stands by after a term. It remembers what it wrote: while nothing else is seen,
// nobody else has led, and its own callback has returned.
func (w own) afterwards(o seen, phase Phase, identity string) own {
	next := own{sitOut: w.sitOut, gaveUp: w.gaveUp, over: w.over, unfit: w.unfit, dead: w.dead, provenAt: w.provenAt, past: w.past, times: w.times}
	w.suspended = false
	if w.owns(&o, phase, identity) && w.wrote.Holder != "" {
		next.over = append(next.over, w.wrote.term())
	}
	return next
}

// next is the claim to write for what there is to do. A retry repeats the write that it retries, so that few are in doubt.
func (w own) next(c Config, o seen, do action, notice int32, now Instant, salt int64) Claim {
	if n := len(w.unconfirmed); n > 0 {
		last := w.unconfirmed[n-1].Claim
		if (last.Holder == "") == (do == release) && !sameWrite(last, o.record.Claim) {
			return last
		}
	}
	n := w.wrote.Claim
	if w.mayHaveWritten(o.record.Claim) {
		n = o.record.Claim
	}
	acquired, renewed := stamps(now, salt)
	n.Renewed = renewed
	if n.Renewed <= o.record.Renewed && n.Renewed+1000 > o.record.Renewed {
		n.Renewed = o.record.Renewed + 1 // two writes of one millisecond must differ
	}
	switch {
	case do == release:
		n.Holder, n.Seconds, n.Acquired = "", max(notice, 1), n.Renewed
		return n
	case n.Acquired == 0:
		n.Acquired = acquired
		if o.exists {
			n.Transitions = more(o.record.Transitions)
		}
	}
	n.Holder, n.Seconds = c.Identity, c.seconds()
	return n
}
