package protocol

import (
	"cmp"
	"slices"
	"time"
)

// seen is the Lease as a candidate last saw it. The zero value has seen nothing.
type seen struct {
	stale  bool // the record has changed since: a conditional write was refused, or may have been applied
	exists bool
	record Record  // of the last Lease when there is none; its Version is the highest one seen
	at     Instant // when this was received; zero before the API has answered once
	since  Instant // when the claim or the request to step down was first received as it is

	// expires is the local time until which the record binds everybody but its holder. Zero after a release, and
	// before anything was seen.
	expires Instant

	// binds is how long a record that the last holder wrote itself binds, 0 before one was seen. It outlives a release:
	// when the Lease is next found to have changed in more than one step, that much may have been promised just now.
	binds time.Duration

	// promised is until when the renewals by the present holder bind, each by what it said. A later one does not take
	// back what an earlier one has said, whoever has written it.
	promised Instant

	// before is what other holders were promised when the present one came by a Lease that was made anew, or that has come
	// back. Neither its release nor its death takes that back, because it may never have seen them.
	before Instant
	held   holding // the last one

	back    bool      // the record is older than one that was seen before, and has come back (S13)
	history [8]moment // the last records that were seen

	renewedAt Instant       // when the last renewal was received
	interval  time.Duration // between the last two renewals by one holder; 0 if there were not two
}

// A holding is by which Lease a term is held.
type holding struct {
	term Mark
	uid  string
}

// isNot reports whether the record is of another term, for certain: an edit may have cut its times, or taken them away.
func (h holding) isNot(r Record) bool {
	return h.uid != "" && r.Holder != "" && (r.Holder != h.term.Holder || r.Acquired != 0 && h.term.Acquired != 0 && !sameTime(r.Acquired, h.term.Acquired))
}

// A moment tells a record from others: after a restore of etcd, versions repeat.
type moment struct {
	version uint64 // 0 for none
	claim   Claim
}

// see returns what is seen once a record was received at now. It is taken in if it is not older than the last one, or if it
// answers a request sent after that one came in: then it is the API that has gone back in time, as with a restored etcd.
func (o seen) see(r Record, sent, now Instant) seen {
	if o.outrun(r, sent) {
		return o
	}
	before, same := o.record, o.exists && o.record.UID == r.UID
	// An older record has a lower version. If somebody has edited it since it came back, its version is high, but its Lease
	// was created earlier, or its count of terms is lower, or its deletion was seen. If a term was won on it since, that is
	// another one than the last, by a count that is not higher. (One who does not count leaves it at 0.)
	back := r.Version != 0 && r.Version < before.Version || r.Created < before.Created || same && r.Transitions < before.Transitions ||
		same && r.Transitions > 0 && r.Transitions == before.Transitions && o.held.isNot(r) || !o.exists && r.UID == before.UID && r.UID != ""
	again := r.Version != before.Version && r.Version != 0 && slices.Contains(o.history[:], momentOf(r))
	renewed := !again && !sameTime(r.Renewed, before.Renewed)
	next := o
	next.back = back || o.back && r.term() == before.term()
	next.remember(momentOf(r))
	// On a record that has come back, what counts one term more is another's, a release, too.
	next.succeeds(r, back || o.back && (r.Holder != "" || r.Transitions != before.Transitions), now)
	next.stale, next.exists, next.record, next.at = false, true, r, now
	if !o.exists || r.Claim != before.Claim || r.To != before.To || r.Asked != before.Asked {
		next.since = now
	}
	// A renewal may have been edited before it was received. Then its holder counts on what it always writes.
	ends := now.Add(max(r.Duration(), o.binds))
	if renewed {
		next.promised = latest(o.promised, ends)
		next.renewedAt, next.interval = now, 0
		if r.Holder == before.Holder && !o.renewedAt.IsZero() {
			next.interval = now.Sub(o.renewedAt)
		}
	}
	if renewed && r.Holder != "" {
		next.binds = r.Duration()
	}
	switch {
	case again:
		// API servers that answer in turns, one of them from an old state: nothing has happened.
	case back && r.Holder == "":
		// An older record takes nothing back that a newer one has promised (S3). If it is a release with notice, and not so
		// old after all, that binds, too (S8).
		if r.Released() && r.Seconds > 1 {
			next.expires = latest(o.expires, now.Add(r.Duration()))
		}
	case r.Released() && renewed:
		next.expires, next.promised = Instant{}, Instant{}
		if next.before.After(now) {
			next.expires, next.promised = next.before, next.before // the renewals of the next holder do not take that back, either
		}
		if r.Seconds > 1 {
			next.expires = latest(next.expires, now.Add(r.Duration())) // a policy of the API server has made it longer: that binds (S8)
		}
	case r.Claim == before.Claim && same:
		// Only what others own has changed. That is no renewal.
	case r.Blank() && !o.exists:
		// Somebody made it anew. It says nothing about the holder of the one before (S6).
	case r.Blank():
		next.expires = latest(o.expires, now.Add(o.binds)) // it was made anew, and the deletion before was not seen
	case r.Holder == before.Holder && renewed:
		next.expires = next.promised
	default:
		// A new holder, or an edit. Neither shortens what the holder before was promised.
		next.expires = latest(o.expires, ends)
	}
	return next
}

// succeeds takes in who holds the Lease now. A term that goes on, in a Lease that its holder has put back, succeeds nobody.
func (o *seen) succeeds(r Record, back bool, now Instant) {
	if r.Blank() {
		return
	}
	h := holding{r.term(), r.UID}
	switch anew := h.uid != o.held.uid; {
	case o.held.uid == "" || h.term == o.held.term:
	case anew && o.exists && o.record.UID == o.held.uid:
		o.before = latest(o.expires, now.Add(o.binds)) // it was deleted unseen, and may have been renewed before (S6)
	case anew || back:
		o.before = o.expires
	}
	o.held = h
}

// renews reports whether the record was written after that of before, in the same term. Its renewTime is later, or its
// version is: its writer's clock may have been set back.
func (o *seen) renews(before seen) bool {
	r, was := o.record, before.record
	return r.term() == was.term() && r.Renewed != was.Renewed && (r.Renewed > was.Renewed || r.Version > was.Version)
}

func momentOf(r Record) moment { return moment{r.Version, r.Claim} }

// remember keeps a moment.
func (o *seen) remember(m moment) {
	if !slices.Contains(o.history[:], m) {
		copy(o.history[1:], o.history[:])
		o.history[0] = m
	}
}

// outrun reports whether r was overtaken on its way: something newer has been seen already. A record that was read by a
// request sent after the last one came in is never overtaken.
func (o seen) outrun(r Record, sent Instant) bool {
	if !o.exists && o.record.Version == 0 || sent.After(o.at) {
		return false
	}
	if r.Version != 0 && o.record.Version != 0 {
		return r.Version < o.record.Version
	}
	// client-go's plain fake has no resourceVersions. The holder's own clock is the next best.
	return r.Renewed != 0 && r.Renewed < o.record.Renewed
}

// gone returns what is seen once the Lease was found missing, by an answer to a request sent at sent or by a watch
// event with the deletion's version. It still binds until it would have expired (S6).
func (o seen) gone(version uint64, sent, now Instant) seen {
	if version < o.record.Version && !sent.After(o.at) {
		return o
	}
	if o.exists && version == 0 {
		// What was deleted may be newer than what was seen. (A watch, with its version, shows every change before.)
		o.expires = latest(o.expires, now.Add(cmp.Or(o.binds, usualLeaseDuration)))
	}
	if o.exists || !o.known() {
		o.since = now
	}
	o.stale, o.exists, o.at = false, false, now
	o.record.Version = max(o.record.Version, version)
	return o
}

// known reports whether the API has answered once.
func (o *seen) known() bool { return !o.at.IsZero() }

// missing reports whether there is no Lease, or one that somebody has just made.
func (o *seen) missing() bool { return !o.exists || o.record.Blank() }

// holder is the name in the Lease, "" if there is none.
func (o *seen) holder() string {
	if !o.exists {
		return ""
	}
	return o.record.Holder
}

// transfer is the candidate to which an annotation on the Lease would hand it over: "" for anybody. It is not ok
// without the annotation (L8).
func (o *seen) transfer() (to string, ok bool) {
	return o.record.To, o.exists && o.record.Asked
}

// quiet is when a standby that watches checks whether its watch still works: when renewals have not come for three
// times the interval at which they came, half of the record's duration at most (L2). Zero if there is nothing to check.
func (o *seen) quiet() Instant {
	if o.holder() == "" || o.renewedAt.IsZero() {
		return Instant{}
	}
	limit := o.record.Duration() / 2
	if o.interval > 0 {
		limit = min(limit, 3*o.interval)
	}
	return o.renewedAt.Add(limit)
}

// late is when a renewal should have come: a quarter of the interval after it was due. Zero if there is nothing to expect.
func (o *seen) late() Instant {
	if o.holder() == "" || o.renewedAt.IsZero() {
		return Instant{}
	}
	interval := cmp.Or(o.interval, o.record.Duration()/5)
	return o.renewedAt.Add(min(interval+max(interval/4, 100*time.Millisecond), o.record.Duration()/2))
}
