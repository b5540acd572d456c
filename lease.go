package elector

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
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
	retryPeriod   time.Duration
	drainLimit    time.Duration // 0 for none
}

// interval is how long after the sending of a renewal the next one is sent (L3).
func (c timing) interval() time.Duration { return min(c.retryPeriod, c.renewDeadline/3) }

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

// stepDownAnnotation on a Lease asks its holder to step down (L8).
const stepDownAnnotation = "elector-go.github.io/step-down"

// names reports whether value names a candidate: by its identity, or by the part before the first "_", which is the
// pod's name where the identity was left to its default.
func names(value, identity string) bool {
	host, _, _ := strings.Cut(identity, "_")
	return value != "" && (value == identity || value == host)
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

// released reports whether the claim is what a holder leaves behind when it lets go: no holder, for one second. An
// admission policy may have made that longer; then the two times show it: they are the same in a release, of
// client-go's elector too. A holder name that somebody only blanked out is different, and frees nobody: the one who
// leads has not stopped.
func (c claim) released() bool {
	return c.holder == "" && c.renewed != 0 && (c.seconds <= 1 || c.acquired == c.renewed)
}

// duration is how long the record binds others. One that does not say is given the usual time.
func (c claim) duration() time.Duration {
	if c.seconds <= 0 {
		return defaultLeaseDuration
	}
	return time.Duration(c.seconds) * time.Second
}

// blank reports whether nobody has ever held the Lease, as in one that was made for RBAC's resourceNames.
func (c claim) blank() bool { return c.holder == "" && c.renewed == 0 }

// sameTime reports whether a and b are one time, though another client may have cut the digits below the millisecond
// off one of them: a JavaScript client does when it writes a Lease back.
func sameTime(a, b int64) bool {
	return a == b || a != 0 && b != 0 && a/1000 == b/1000 && (a%1000 == 0 || b%1000 == 0)
}

// sameWrite reports whether a and b come from one write, though another client may have edited the record since. Both
// times must agree. Their last digits are random (see stamps), so even replicas of one name do not write the same.
func sameWrite(a, b claim) bool { return a.acquired == b.acquired && a.renewed == b.renewed }

// sameTerm reports whether a record that names a holder comes from the term in which the holder wrote w: one of the two
// times is enough, because the record may be an older state of that term, or have lost the other time.
func sameTerm(record, w claim) bool {
	return record.acquired != 0 && sameTime(record.acquired, w.acquired) || record.renewed != 0 && sameTime(record.renewed, w.renewed)
}

// stamps are the times of a write that wins the Lease, in microseconds. What is below the millisecond is replaced by
// salt, which is to be random. It is never 0, so that a time that was cut off (see sameTime) is not taken for a whole
// one; and the two differ, unlike those of a release.
func stamps(now time.Time, salt int64) (acquired, renewed int64) {
	a := 1 + salt%998
	b := a + 1 + salt/1000%(999-a)
	return now.UnixMilli()*1000 + a, now.UnixMilli()*1000 + b
}

// observed is the Lease as a candidate last saw it. The zero value has seen nothing.
type observed struct {
	stale   bool                  // the record has changed since: a conditional write was refused
	lease   *coordinationv1.Lease // nil when there is none; never modified
	created time.Time             // when lease was, by the API server's clock; when the last one was when there is none
	claim   claim                 // of lease; of the last one when there is none
	version uint64                // the highest resourceVersion seen, 0 when the API has none to compare
	at      time.Time             // when this was received
	since   time.Time             // when the claim or the request to step down was first received as it is

	// expires is the local time until which the record binds everybody but its holder. Zero after a release, and
	// before anything was seen.
	expires time.Time

	// binds is how long a record that the last holder wrote itself binds, 0 before one was seen. It outlives a release:
	// when the Lease is next found to have changed in more than one step, that much may have been promised just now.
	binds time.Duration

	// promised is until when the renewals by the present holder bind, each by what it said. A later one does not take
	// back what an earlier one has said, whoever has written it.
	promised time.Time

	renewedAt time.Time     // when the last renewal was received
	interval  time.Duration // between the last two renewals by one holder; 0 if there were not two
}

// see returns what is observed once a Lease was received at now. A record is taken in if it is not older than the
// last one, or if it answers a request sent after that one came in: then it is the API that has gone back in time, as
// with a restored etcd.
func (o observed) see(lease *coordinationv1.Lease, sent, now time.Time) observed {
	if o.outrun(lease, sent) {
		return o
	}
	c := claimOf(lease)
	version := versionOf(lease)
	same := o.lease != nil && o.lease.UID == lease.UID
	// An older record has a lower version; or, if somebody has edited it since it came back, it is of a Lease that was
	// created earlier, or has a lower count of terms.
	created := lease.CreationTimestamp.Time
	back := version != 0 && version < o.version || created.Before(o.created) || same && c.transitions < o.claim.transitions
	renewed := !sameTime(c.renewed, o.claim.renewed)
	next := o
	next.stale, next.lease, next.created, next.claim, next.version, next.at = false, lease, created, c, version, now
	before, asked := o.transfer()
	if to, asks := next.transfer(); o.lease == nil || c != o.claim || to != before || asks != asked {
		next.since = now
	}
	// What is seen may be an edit of a renewal that was not. Its holder was then promised what it always is.
	ends := now.Add(max(c.duration(), o.binds))
	if renewed {
		next.promised = latest(o.promised, ends)
		next.renewedAt, next.interval = now, 0
		if c.holder == o.claim.holder && !o.renewedAt.IsZero() {
			next.interval = now.Sub(o.renewedAt)
		}
	}
	if renewed && c.holder != "" {
		next.binds = c.duration()
	}
	switch {
	case back && c.holder == "":
		// An older record takes nothing back that a newer one has promised (S3).
	case c.released() && renewed:
		next.expires, next.promised = time.Time{}, time.Time{}
		if c.seconds > 1 {
			next.expires = now.Add(c.duration()) // a policy of the API server has made the release longer: that binds (S8)
		}
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
		// What was deleted may be newer than what was seen. (A watch, with its version, shows every change before.)
		o.expires = latest(o.expires, now.Add(cmp.Or(o.binds, defaultLeaseDuration)))
	}
	if o.lease != nil || !o.known() {
		o.since = now
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

// transfer is the candidate to which an annotation on the Lease would hand it over: "" for anybody. It is not ok
// without the annotation (L8).
func (o observed) transfer() (to string, ok bool) {
	if o.lease == nil {
		return "", false
	}
	to, ok = o.lease.Annotations[stepDownAnnotation]
	return to, ok
}

// quiet is when a standby that watches checks whether its watch still works: when renewals have not come for three
// times the interval at which they came, half of the record's duration at most (L2). Zero if there is nothing to check.
func (o observed) quiet() time.Time {
	if o.holder() == "" || o.renewedAt.IsZero() {
		return time.Time{}
	}
	limit := o.claim.duration() / 2
	if o.interval > 0 {
		limit = min(limit, 3*o.interval)
	}
	return o.renewedAt.Add(limit)
}

// phase is where a candidate stands.
type phase int

const (
	standingBy phase = iota
	leading          // the callback runs and nothing is wrong
	draining         // the callback has to stop and has not returned
	releasing        // the callback has returned
)

// tenure is what a candidate has written itself: the only ground on which it may call a Lease its own (S5).
type tenure struct {
	phase       phase
	wrote       claim     // the last write known to have been applied; zero for none
	sent        time.Time // just before that write was sent
	version     uint64    // the resourceVersion of wrote
	unconfirmed []claim   // writes on the record as last seen that may or may not have been applied
	doubted     claim     // the last of them, which may be confirmed by now
	doubtedSent time.Time // when that was first sent
	previous    []claim   // the last writes of a term that is over, as long as nothing else was seen since
	dead        []claim   // holder and acquireTime of writes by processes that are proven dead (S12)
	overtaken   bool      // another holder was seen in this term: whatever follows is not ours (S6)
	adopted     int       // writes in a row on top of a win of this candidate that it could not lead on
	drainSince  time.Time // since when the callback has been asked to stop
	unfit       bool      // Options.Healthy has failed (L6)
	pinned      *string   // a request to step down that the API server has kept although a write removed it

	// After StepDown, until sitOut, the Lease is left to others, unless another term than the one that began at gaveUp
	// was seen since.
	sitOut time.Time
	gaveUp int64 // acquireTime
}

// owns reports whether the record is this candidate's by a write of its own, even if somebody has edited it since. A
// Lease that is missing or blank is still the leader's to put back.
func (t tenure) owns(o observed, identity string) bool {
	switch {
	case t.overtaken:
		return false
	case o.lease == nil || o.claim.blank():
		return true
	case o.claim.holder != identity && o.claim.holder != "":
		return false
	case t.wrote.renewed != 0 && sameWrite(o.claim, t.wrote) || t.mayHaveWritten(o.claim):
		return true
	case o.claim.holder == "":
		return false
	}
	// Our name, with times that we did not write so. While the callback runs, nobody else of our name can have won the
	// Lease, so it is enough that the record comes from our term, or has no times at all. At any other time two replicas of
	// one name, whose times differ in the digits that were cut off, could be taken for each other.
	serving := t.phase == leading || t.phase == draining
	timeless := o.claim.acquired == 0 && o.claim.renewed == 0
	return serving && (timeless || sameTerm(o.claim, t.wrote) || slices.ContainsFunc(t.unconfirmed, func(u claim) bool { return sameTerm(o.claim, u) }))
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
	ours := t.owns(o, identity)
	t.overtaken = t.phase != standingBy && !ours
	t.unconfirmed, t.previous = matching(t.unconfirmed, o), matching(t.previous, o)
	if t.phase == standingBy && !ours {
		t.wrote, t.sent, t.version, t.adopted = claim{}, time.Time{}, 0, 0 // what it proved is over
	}
	if o.lease != nil && !t.isDead(o) {
		t.dead = nil // somebody else has written the Lease since: the proof is over, even if the old record comes back
	}
	if o.lease != nil && o.claim.acquired != t.gaveUp {
		t.sitOut = time.Time{} // another term has begun since: nothing to sit out any more
	}
	return t
}

// sending returns the tenure once the write c, decided on o, is about to be sent: from here on it may be applied, whatever
// becomes of the reply. A watch event may even show it first.
func (t tenure) sending(o observed, do action, c claim, now time.Time) tenure {
	if do == acquire && o.lease != nil && o.claim.holder == c.holder && t.owns(o, c.holder) {
		t.adopted++
	}
	if !t.mayHaveWritten(c) {
		t.unconfirmed, t.doubted, t.doubtedSent = append(t.unconfirmed, c), c, now
	}
	return t
}

// seenApplied returns the tenure once the record is just what a holder's last write says, whose reply has not come or was
// lost. Then that write is known to have been applied, and counts from when it was first sent: which of its repetitions
// was applied is not known (S1). It is not ok with any other record.
func (t tenure) seenApplied(o observed) (next tenure, ok bool) {
	serving := t.phase == leading || t.phase == draining
	if !serving || t.overtaken || o.lease == nil || o.claim != t.doubted || !t.doubtedSent.After(t.sent) {
		return t, false
	}
	return t.applied(o.claim, o.lease, t.doubtedSent), true
}

// applied returns the tenure once the write c of its own, sent at sent, is known to have been applied, and to have
// resulted in lease. Another write may be under way, on a newer record: that one stays unconfirmed.
func (t tenure) applied(c claim, lease *coordinationv1.Lease, sent time.Time) tenure {
	t.wrote, t.sent, t.version = claimOf(lease), sent, versionOf(lease)
	t.unconfirmed = slices.DeleteFunc(slices.Clone(t.unconfirmed), func(u claim) bool { return sameWrite(u, c) })
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
	next := tenure{sitOut: t.sitOut, gaveUp: t.gaveUp, dead: t.dead, unfit: t.unfit}
	if t.owns(o, identity) && t.wrote.holder != "" {
		next.previous = append(t.unconfirmed, t.wrote)
	}
	return next
}

// action is what there is to do.
type action int

const (
	idle     action = iota // nothing, until something is seen
	get                    // GET
	acquire                // POST or PUT: become the holder
	lead                   // the Lease is won: start the callback
	renew                  // POST or PUT: stay the holder
	release                // PUT: let go
	stop                   // the term is over: end the callback's ctx
	stepDown               // give the term up: end the callback's ctx, and keep the Lease until it has returned
	done                   // there is nothing (more) to release
)

// A decision is what to do and not before when; the zero time means at once.
type decision struct {
	do   action
	at   time.Time
	lost *LostError // why, for stop and stepDown
}

// decide is the protocol: what follows from what was seen and written, at a given time.
func decide(c timing, o observed, t tenure, now time.Time) decision {
	switch t.phase {
	case leading:
		if lost := overBy(c, o, t, now); lost != nil {
			return decision{do: stop, lost: lost}
		}
		if reason := mustStepDown(c, o, t); reason != 0 {
			return decision{do: stepDown, lost: &LostError{Reason: reason, Holder: o.holder()}}
		}
		return hold(c, o, t)
	case draining:
		switch {
		case !t.owns(o, c.identity), (o.lease == nil || o.claim.blank()) && age(t.sent, now) >= c.leaseDuration:
			return decision{do: idle} // when its own has expired, a Lease that was deleted may have been another's (S6)
		case c.drainLimit > 0 && age(t.drainSince, now) >= c.drainLimit:
			return decision{do: idle} // the lease is kept no longer (S9)
		}
		return hold(c, o, t)
	case releasing:
		return letGo(c, o, t)
	default:
		return campaign(c, o, t, now)
	}
}

// mustStepDown is why a leader has to give its term up although it could keep it; 0 if it does not have to.
func mustStepDown(c timing, o observed, t tenure) Reason {
	if t.unfit {
		return ReasonUnhealthy
	}
	if to, ok := o.transfer(); ok && !names(to, c.identity) && !t.isPinned(to) {
		return ReasonRequested
	}
	return 0
}

// pinning returns the tenure once a write has resulted in lease. If that has a request to step down which the write
// removed, then a policy has put it there, and not somebody who asks now. Whoever heeded it would give up each term as soon
// as it begins (L8).
func (t tenure) pinning(do action, lease *coordinationv1.Lease, identity string) tenure {
	to, ok := lease.Annotations[stepDownAnnotation]
	switch {
	case !ok:
		t.pinned = nil
	case do == acquire || do == renew && names(to, identity):
		t.pinned = &to
	}
	return t
}

func (t tenure) isPinned(to string) bool { return t.pinned != nil && *t.pinned == to }

// campaign decides for a standby.
func campaign(c timing, o observed, t tenure, now time.Time) decision {
	ours := o.lease != nil && o.claim.holder == c.identity && t.owns(o, c.identity)
	switch {
	case !o.known() || o.stale:
		return decision{do: get}
	case t.unfit:
		return decision{do: idle}
	case ours && t.wrote.holder == c.identity && (o.claim == t.wrote || t.mayHaveWritten(o.claim)) && age(t.sent, now) < c.renewDeadline/2:
		return decision{do: lead}
	case ours && t.adopted < maxAdopted:
		// Our own write, but its reply was lost, or took so long that the term could not be renewed in time. One more
		// write makes it certain (S5), or shows that answers are faster now (L3).
		return decision{do: acquire}
	case len(matching(t.previous, o)) > 0 && o.claim.holder == c.identity:
		return decision{do: acquire, at: t.sitOut} // its own last record, and its term is over: no need to wait for itself
	case t.isDead(o):
		return decision{do: acquire} // (S12)
	}
	at := latest(o.expires, t.sitOut)
	if to, ok := o.transfer(); ok && to != "" && !names(to, c.identity) {
		at = latest(at, latest(o.expires, o.since).Add(c.renewDeadline/3)) // another one goes first (L8)
	}
	return decision{do: acquire, at: at}
}

// isDead reports whether the record is exactly what a process proven dead has written.
func (t tenure) isDead(o observed) bool {
	return o.lease != nil && slices.ContainsFunc(t.dead, func(d claim) bool {
		return d.holder != "" && d.acquired != 0 && o.claim.holder == d.holder && o.claim.acquired == d.acquired
	})
}

// overBy is why a leader's term is over, nil if it is not.
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
	to, _ := o.transfer()
	switch {
	case o.stale:
		return decision{do: get}
	case o.lease == nil || o.claim != t.wrote:
		// Deleted, edited, or a write of ours whose reply was lost: put it right.
		return decision{do: renew}
	case names(to, c.identity) && !t.isPinned(to):
		return decision{do: renew} // a transfer to the one that holds it already: nothing to do but remove it
	default:
		return decision{do: renew, at: t.sent.Add(c.interval())}
	}
}

// letGo decides for a holder whose callback has returned (S8).
func letGo(c timing, o observed, t tenure) decision {
	switch {
	case t.wrote.renewed != 0 && t.wrote.holder == "":
		return decision{do: done} // answered, whatever a policy has made of it
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
		n.holder, n.seconds, n.acquired = "", 1, n.renewed
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
