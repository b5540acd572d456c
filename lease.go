package elector

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// This file is the protocol: what a candidate sees, what it has written, and what follows from the two at a given
// time. Nothing here reads a clock, starts a goroutine or talks to an API server.

// timing is the part of Options that decisions depend on.
type timing struct {
	identity      string
	leaseDuration time.Duration
	renewDeadline time.Duration
}

// overrunAfter is how long after the sending of the last renewal OnOverrun is due: when three quarters of the stop
// budget are spent. The last quarter is left to the one who has to act, and to clocks that run at different rates.
func (c timing) overrunAfter() time.Duration {
	return c.leaseDuration - (c.leaseDuration-c.renewDeadline)/4
}

// A claim is the part of a Lease's spec that a candidate writes. The rest of the Lease belongs to others (S11).
type claim struct {
	holder      string
	seconds     int32
	acquired    int64 // microseconds since 1970, 0 for none
	renewed     int64 // likewise
	transitions int32
}

func claimOf(lease *coordinationv1.Lease) claim {
	micros := func(t *metav1.MicroTime) int64 {
		if t == nil || t.IsZero() {
			return 0
		}
		return t.UnixMicro()
	}
	s := &lease.Spec
	return claim{
		holder:      ptr.Deref(s.HolderIdentity, ""),
		seconds:     ptr.Deref(s.LeaseDurationSeconds, 0),
		acquired:    micros(s.AcquireTime),
		renewed:     micros(s.RenewTime),
		transitions: ptr.Deref(s.LeaseTransitions, 0),
	}
}

// onto returns a copy of lease that carries the claim and the labels. Everything else in it is kept.
func (c claim) onto(lease *coordinationv1.Lease, labels map[string]string) *coordinationv1.Lease {
	lease = lease.DeepCopy()
	if len(labels) > 0 && lease.Labels == nil {
		lease.Labels = make(map[string]string, len(labels))
	}
	maps.Copy(lease.Labels, labels)
	acquired, renewed := metav1.NewMicroTime(time.UnixMicro(c.acquired)), metav1.NewMicroTime(time.UnixMicro(c.renewed))
	lease.Spec.HolderIdentity = &c.holder
	lease.Spec.LeaseDurationSeconds = &c.seconds
	lease.Spec.AcquireTime = &acquired
	lease.Spec.RenewTime = &renewed
	lease.Spec.LeaseTransitions = &c.transitions
	return lease
}

// released reports whether the claim is what a holder leaves behind when it lets go: no holder, for one second. A
// holder name that somebody only blanked out looks different, and frees nobody: the one who leads has not stopped.
func (c claim) released() bool { return c.holder == "" && c.seconds <= 1 && c.renewed != 0 }

// duration is how long the record binds others. One that does not say is given the usual time.
func (c claim) duration() time.Duration {
	if c.seconds <= 0 {
		return defaultLeaseDuration
	}
	return time.Duration(c.seconds) * time.Second
}

// blank reports whether nobody has ever held the Lease, as in one that was made for RBAC's resourceNames.
func (c claim) blank() bool { return c.holder == "" && c.renewed == 0 }

// sameWrite reports whether a and b come from one write, though a foreign hand may have touched the record since. The
// two times tell: their last digits are random (see stamps), so even replicas of one name do not write the same.
func sameWrite(a, b claim) bool { return a.acquired == b.acquired && a.renewed == b.renewed }

// stamps are the times of a write that wins the Lease, in microseconds. What is below the millisecond is replaced by
// salt, which is to be random.
func stamps(now time.Time, salt int64) (acquired, renewed int64) {
	a, b := salt%1000, salt/1000%1000
	return now.UnixMilli()*1000 + min(a, b), now.UnixMilli()*1000 + max(a, b)
}

// observed is the Lease as a candidate last saw it. The zero value has seen nothing.
type observed struct {
	stale   bool                  // the record has changed since: a conditional write was refused
	lease   *coordinationv1.Lease // nil when there is none; never modified
	claim   claim                 // of lease; of the last one when there is none
	version uint64                // the highest resourceVersion seen, 0 when the API has none to compare
	at      time.Time             // when this was received

	// expires is the local time until which the record binds everybody but its holder. Zero after a release, and
	// before anything was seen.
	expires time.Time

	// binds is how long a record of the last holder's own hand binds, 0 before one was seen. It outlives a release:
	// when the Lease is next found to have changed in more than one step, that much may have been promised just now.
	binds time.Duration

	// promised is until when the renewals by the present holder bind, each by what it said. A later one does not take
	// back what an earlier one has said, whoever has written it.
	promised time.Time
}

// see returns what is observed once a Lease was received at now. A record is taken in if it is not older than the one
// seen, or if it answers a request sent after that one came in: then it is the API that has gone back in time.
func (o observed) see(lease *coordinationv1.Lease, sent, now time.Time) observed {
	if o.outrun(lease, sent) {
		return o
	}
	c := claimOf(lease)
	renewed := c.renewed != o.claim.renewed
	next := o
	next.stale, next.lease, next.claim, next.version, next.at = false, lease, c, versionOf(lease), now
	// What is seen may be an edit of a renewal that was not. Its holder was then promised what it always is.
	ends := now.Add(max(c.duration(), o.binds))
	if renewed {
		next.promised = latest(o.promised, ends)
	}
	if renewed && c.holder != "" {
		next.binds = c.duration()
	}
	switch same := o.lease != nil && o.lease.UID == lease.UID; {
	case c.released() && renewed:
		next.expires, next.promised = time.Time{}, time.Time{}
	case c == o.claim && same:
		// Only what others own has changed. That is no renewal.
	case c.blank() && o.lease == nil:
		// Somebody made it anew. It says nothing about the holder of the one before (S6).
	case c.blank():
		next.expires = latest(o.expires, now.Add(o.binds)) // the same, but its deletion was not seen
	case c.holder == o.claim.holder && renewed:
		next.expires = next.promised
	default:
		// A new holder, or an edit. Neither shortens what the holder before was promised.
		next.expires = latest(o.expires, ends)
	}
	return next
}

// outrun reports whether something newer than lease has been seen already.
func (o observed) outrun(lease *coordinationv1.Lease, sent time.Time) bool {
	if o.lease == nil && o.version == 0 || sent.After(o.at) {
		return false
	}
	if version := versionOf(lease); version != 0 && o.version != 0 {
		return version < o.version
	}
	// client-go's plain fake has no resourceVersions. The holder's own clock is the next best.
	renewed := claimOf(lease).renewed
	return renewed != 0 && renewed < o.claim.renewed
}

// gone returns what is observed once the Lease was found missing, by an answer to a request sent at sent or by a watch
// event with the deletion's version. It still binds until it would have expired (S6).
func (o observed) gone(version uint64, sent, now time.Time) observed {
	if version < o.version && !sent.After(o.at) {
		return o
	}
	if o.lease != nil && version == 0 {
		// What was deleted may be newer than what was seen. (A watch, with its version, tells every change before.)
		o.expires = latest(o.expires, now.Add(cmp.Or(o.binds, defaultLeaseDuration)))
	}
	o.stale, o.lease, o.at = false, nil, now
	o.version = max(o.version, version)
	return o
}

// known reports whether the API has answered once.
func (o observed) known() bool { return !o.at.IsZero() }

// holder is the name in the Lease, "" if there is none.
func (o observed) holder() string {
	if o.lease == nil {
		return ""
	}
	return o.claim.holder
}

// phase is where a candidate stands.
type phase int

const (
	standingBy phase = iota
	leading          // the callback runs and nothing is wrong
	draining         // the callback was told to stop and has not returned
	releasing        // the callback has returned
)

// tenure is what a candidate has written itself: the only ground on which it may call a Lease its own (S5).
type tenure struct {
	phase       phase
	wrote       claim     // the last write known to have been applied; zero for none
	sent        time.Time // just before that write was sent
	unconfirmed []claim   // writes on the record as last seen that may or may not have been applied
	previous    []claim   // the last writes of a term that is over, as long as nothing else was seen since
	sitOut      time.Time // after StepDown: leave it to others until then
	version     uint64    // the resourceVersion of wrote
	overtaken   bool      // another holder was seen in this term: whatever follows is not ours (S6)
	adopted     int       // writes in a row, all without a reply, on top of a win in doubt
}

// owns reports whether the record is this candidate's by a write of its own, even if somebody has edited it since. A
// Lease that is missing or blank is still the leader's to put back.
func (t tenure) owns(o observed, identity string) bool {
	if t.overtaken {
		return false
	}
	if o.lease == nil || o.claim.blank() {
		return true
	}
	if o.claim.holder != identity && o.claim.holder != "" {
		return false
	}
	return t.wrote.renewed != 0 && sameWrite(o.claim, t.wrote) || t.mayHaveWritten(o.claim)
}

// maxAdopted is how often a standby tries to make a win in doubt certain. One that never hears a reply would keep the
// Lease from all others otherwise, and not lead itself.
const maxAdopted = 3

// mayHaveWritten reports whether c is a write of this candidate whose reply was lost.
func (t tenure) mayHaveWritten(c claim) bool {
	return slices.ContainsFunc(t.unconfirmed, func(d claim) bool { return sameWrite(c, d) })
}

// saw returns the tenure once a newer record was seen: a PUT on the record before can no longer be applied, and a
// POST, which can if the newer record is deleted, would be no win any more (S6). So the only doubt that stays is about a
// write that is now seen to have been applied.
func (t tenure) saw(o observed, identity string) tenure {
	t.overtaken = t.phase != standingBy && !t.owns(o, identity)
	t.unconfirmed, t.previous = matching(t.unconfirmed, o), matching(t.previous, o)
	return t
}

// sending returns the tenure once the write c, decided on o, is about to be sent: from here on it may be applied, whatever
// becomes of the reply. A watch event may even tell so first.
func (t tenure) sending(o observed, do action, c claim) tenure {
	if do == acquire && t.mayHaveWritten(o.claim) {
		t.adopted++
	}
	if !t.mayHaveWritten(c) {
		t.unconfirmed = append(t.unconfirmed, c)
	}
	return t
}

// applied returns the tenure once a write of its own, sent at sent, is known to have been applied.
func (t tenure) applied(lease *coordinationv1.Lease, sent time.Time) tenure {
	t.wrote, t.sent, t.version, t.unconfirmed, t.adopted = claimOf(lease), sent, versionOf(lease), nil, 0
	return t
}

// matching returns those of the claims that are the record.
func matching(claims []claim, o observed) (kept []claim) {
	for _, c := range claims {
		if o.lease != nil && sameWrite(o.claim, c) {
			kept = append(kept, c)
		}
	}
	return kept
}

// afterwards returns the tenure with which a candidate stands by after a term. It remembers what it wrote: while nothing
// else is seen, nobody else has led, and its own callback has returned.
func (t tenure) afterwards(o observed, identity string) tenure {
	next := tenure{sitOut: t.sitOut}
	if t.owns(o, identity) && t.wrote.holder != "" {
		next.previous = append(t.unconfirmed, t.wrote)
	}
	return next
}

// action is what there is to do.
type action int

const (
	idle    action = iota // nothing, until something is seen
	get                   // GET
	acquire               // POST or PUT: become the holder
	lead                  // the Lease is won: start the callback
	renew                 // POST or PUT: stay the holder
	release               // PUT: let go
	stop                  // the term is over: tell the callback
	done                  // there is nothing (more) to release
)

// A decision is what to do and not before when; the zero time means at once.
type decision struct {
	do   action
	at   time.Time
	lost *LostError // why, for stop
}

// decide is the protocol: what follows from what was seen and written, at a given time.
func decide(c timing, o observed, t tenure, now time.Time) decision {
	switch t.phase {
	case leading:
		if lost := overBy(c, o, t, now); lost != nil {
			return decision{do: stop, lost: lost}
		}
		return hold(c, o, t)
	case draining:
		if !t.owns(o, c.identity) || o.lease == nil && age(t.sent, now) >= c.leaseDuration {
			return decision{do: idle} // when its own has expired, a Lease that was deleted may have been another's (S6)
		}
		return hold(c, o, t)
	case releasing:
		return letGo(c, o, t)
	default:
		return campaign(c, o, t, now)
	}
}

// campaign decides for a standby.
func campaign(c timing, o observed, t tenure, now time.Time) decision {
	switch {
	case !o.known() || o.stale:
		return decision{do: get}
	case o.lease != nil && o.claim.holder == c.identity && o.claim == t.wrote && age(t.sent, now) < c.renewDeadline:
		return decision{do: lead}
	case o.lease != nil && o.claim.holder == c.identity && t.owns(o, c.identity) && t.adopted < maxAdopted:
		// Our own write, but its reply was lost or came too late to lead on. One more makes it certain (S5).
		return decision{do: acquire}
	case len(matching(t.previous, o)) > 0 && o.claim.holder == c.identity:
		return decision{do: acquire, at: t.sitOut} // its own last record, and its term is over: no need to wait for itself
	}
	return decision{do: acquire, at: latest(o.expires, t.sitOut)}
}

// overBy tells why a leader's term is over, nil if it is not.
func overBy(c timing, o observed, t tenure, now time.Time) *LostError {
	switch {
	case !t.owns(o, c.identity) && o.claim.holder == c.identity:
		return &LostError{Reason: ReasonDuplicateIdentity, Holder: o.claim.holder}
	case !t.owns(o, c.identity):
		return &LostError{Reason: ReasonTakenOver, Holder: o.claim.holder}
	case age(t.sent, now) < c.renewDeadline:
		return nil
	case o.lease == nil:
		return &LostError{Reason: ReasonDeleted}
	default:
		return &LostError{Reason: ReasonDeadlinePassed, Holder: o.claim.holder}
	}
}

// hold decides for a holder that means to stay one.
func hold(c timing, o observed, t tenure) decision {
	switch {
	case o.stale:
		return decision{do: get}
	case o.lease == nil || o.claim != t.wrote:
		// Deleted, edited, or a write of ours whose reply was lost: put it right.
		return decision{do: renew}
	default:
		return decision{do: renew, at: t.sent.Add(c.renewDeadline / 3)}
	}
}

// letGo decides for a holder whose callback has returned (S8).
func letGo(c timing, o observed, t tenure) decision {
	switch {
	case o.stale:
		return decision{do: get}
	case o.lease == nil, o.claim.blank(), o.claim.released(), !t.owns(o, c.identity):
		return decision{do: done}
	default:
		return decision{do: release}
	}
}

// next is the claim to write for a decision. A retry repeats the write that it retries, so that few are in doubt.
func (t tenure) next(c timing, o observed, do action, now time.Time, salt int64) claim {
	if n := len(t.unconfirmed); n > 0 && (t.unconfirmed[n-1].holder == "") == (do == release) && !sameWrite(t.unconfirmed[n-1], o.claim) {
		return t.unconfirmed[n-1]
	}
	n := t.wrote
	if t.mayHaveWritten(o.claim) {
		n = o.claim
	}
	acquired, renewed := stamps(now, salt)
	n.renewed = renewed
	if n.renewed <= o.claim.renewed && n.renewed+1000 > o.claim.renewed {
		n.renewed = o.claim.renewed + 1 // two writes of one millisecond must differ
	}
	switch fresh := n.acquired == 0; {
	case do == release:
		n.holder, n.seconds = "", 1
		return n
	case fresh && o.lease != nil:
		n.transitions = min(o.claim.transitions, math.MaxInt32-1) + 1
		fallthrough
	case fresh:
		n.acquired = acquired
	}
	n.holder, n.seconds = c.identity, int32(c.leaseDuration/time.Second)
	return n
}

// age is the time since t by the monotonic or by the wall clock, whichever has gone on further: the first stands still
// while a machine is suspended, the second may be set back.
func age(t, now time.Time) time.Duration {
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// versionOf is the Lease's resourceVersion as a number, 0 if it is none. The versions of a cluster are comparable
// (KEP-5504).
func versionOf(lease *coordinationv1.Lease) uint64 {
	n, err := strconv.ParseUint(lease.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
