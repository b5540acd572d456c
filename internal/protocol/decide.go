package protocol

import "time"

// Config is what does not change in an election. Durations are as in the Options of package elector.
type Config struct {
	Identity      string
	LeaseDuration time.Duration
	RenewDeadline time.Duration
	RetryPeriod   time.Duration
	DrainLimit    time.Duration // 0 for none
	Recovery      time.Duration // how long a term may be suspended; 0 for not at all (S14)
	Traces        bool          // Left events say when requests leave; otherwise they do as they are handed out
	Yields        bool          // Yield events answer how long to wait for others
	Follows       bool          // only find out who leads
}

// seconds is the LeaseDuration as the Lease has it.
func (c Config) seconds() int32 { return int32(c.LeaseDuration / time.Second) }

// Interval is how long after the sending of a renewal the next one is sent (L3).
func (c Config) Interval() time.Duration { return min(c.RetryPeriod, c.RenewDeadline/3) }

// Phase is where a candidate stands.
type Phase int

// The phases of a candidate.
const (
	StandingBy Phase = iota
	Leading          // the callback runs and nothing is wrong
	Draining         // the callback has to stop and has not returned
	Releasing        // the callback has returned, or was never begun
	Over             // released, or there was nothing to release
	Following        // not a candidate at all
)

// String names the phase.
func (p Phase) String() string {
	return [...]string{"standing by", "leading", "draining", "releasing", "over", "following"}[p]
}

// Reason is why a term was lost or given up. The values are those of package elector.
type Reason int

// The reasons. Package elector documents them.
const (
	TakenOver Reason = iota + 1
	Deleted
	DeadlinePassed
	SteppedDown
	DuplicateIdentity
	Unhealthy
	Requested
)

// Lost is why a term was lost or given up, and the holder named in the Lease then. The zero Lost is for a term that was not.
type Lost struct {
	Reason Reason
	Holder string
}

// action is what there is to do.
type action int

const (
	idle     action = iota // nothing, until something is seen
	get                    // GET
	acquire                // POST or PUT: become the holder
	lead                   // the Lease is won: begin the callback
	renew                  // POST or PUT: stay the holder
	release                // PUT: let go
	stop                   // the term is over: end the callback's ctx
	stepDown               // give the term up: end the callback's ctx, and keep the Lease until it has returned
	done                   // there is nothing (more) to release
)

// A decision is what to do and not before when; the zero Instant means at once.
type decision struct {
	do   action
	at   Instant
	lost Lost // why, for stop and stepDown
}

// state is what decisions follow from.
type state struct {
	Config
	phase      Phase
	seen       seen
	own        own
	drainSince Instant // since when the callback has been asked to stop
	notice     int32   // for how many seconds a release binds, of a process that ends itself; 0 for the usual one (S8)
	copied     bool    // another process has this one's past, and goes on with its term (S5)

	cutOff      bool    // no request of this standby's was answered lately (L11)
	holderFirst Instant // until then an expired Lease is left to the holder that it names (L11)
}

// decide is the protocol: what follows from what was seen and written, at a given time.
func (s *state) decide(now Instant) decision {
	switch s.phase {
	case Leading:
		if lost := s.overBy(now); lost.Reason != 0 {
			return decision{do: stop, lost: lost}
		}
		if reason := s.mustStepDown(); reason != 0 {
			return decision{do: stepDown, lost: Lost{reason, s.seen.holder()}}
		}
		return s.hold()
	case Draining:
		switch {
		case !s.owns(), Age(s.own.sent, now) >= s.LeaseDuration && !(s.seen.exists && s.own.hasWritten(s.seen.record.Claim)):
			return decision{do: idle} // its own has expired: what is missing, or was edited, may have been another's (S5, S6)
		case s.DrainLimit > 0 && Age(s.drainSince, now) >= s.DrainLimit:
			return decision{do: idle} // the lease is kept no longer (S9)
		}
		return s.hold()
	case Releasing:
		return s.letGo()
	case StandingBy:
		return s.campaign(now)
	default:
		return decision{do: idle}
	}
}

func (s *state) owns() bool { return s.own.owns(&s.seen, s.phase, s.Identity) }

// mustStepDown is why a leader has to give its term up although it could keep it; 0 if it does not have to.
func (s *state) mustStepDown() Reason {
	if s.own.unfit {
		return Unhealthy
	}
	if to, ok := s.seen.transfer(); ok && !Names(to, s.Identity) && !s.isPinned(to) {
		return Requested
	}
	return 0
}

// isPinned reports whether the answer to this candidate's last write had that request to step down: then a policy of the
// API server puts it there, and nobody asks now. A leader that did as it says would give up each term as soon as it
// begins (L8).
func (s *state) isPinned(to string) bool { return s.own.wrote.Asked && s.own.wrote.To == to }

// campaign decides for a standby.
func (s *state) campaign(now Instant) decision {
	o, w := &s.seen, &s.own
	ours := o.exists && o.record.Holder == s.Identity && s.owns()
	wins := w.wrote.Holder == s.Identity && (o.record.Claim == w.wrote.Claim || w.mayHaveWritten(o.record.Claim))
	switch {
	case !o.known() || o.stale:
		return decision{do: get}
	case w.unfit:
		return decision{do: idle}
	case ours && wins && Age(w.sent, now) < s.RenewDeadline/2:
		return decision{do: lead}
	case ours && w.adopted < maxAdopted:
		// Our own write, but its reply was lost, or took so long that the term could not be renewed in time. One more
		// write makes it certain (S5), or shows that answers are faster now (L3).
		return decision{do: acquire}
	case w.isOver(*o):
		return decision{do: acquire, at: latest(w.sitOut, o.before)} // nobody else to wait for (S5, S12)
	case w.isDead(*o):
		return decision{do: acquire, at: latest(w.provenAt, o.before)} // (S13)
	case s.cutOff && o.holder() != "":
		return decision{do: get} // when to acquire follows from when the API answers again (L11)
	}
	at := latest(o.expires, w.sitOut)
	if o.holder() != "" {
		at = latest(at, s.holderFirst)
	}
	if to, ok := o.transfer(); ok && to != "" && !Names(to, s.Identity) {
		at = latest(at, latest(o.expires, o.since).Add(s.RenewDeadline/3)) // another one goes first (L8)
	}
	return decision{do: acquire, at: at}
}

// overBy is why a leader's term is over, zero if it is not.
func (s *state) overBy(now Instant) Lost {
	switch o := &s.seen; {
	case s.own.suspended && o.missing():
		return Lost{Reason: Deleted}
	case !s.owns() && o.record.Holder == s.Identity, s.copied:
		return Lost{DuplicateIdentity, o.record.Holder}
	case !s.owns():
		return Lost{TakenOver, o.record.Holder}
	case Age(s.own.sent, now) < s.RenewDeadline:
		return Lost{}
	case !o.exists:
		return Lost{Reason: Deleted}
	case s.phase == Leading && !o.missing() && Age(s.own.sent, now) < s.RenewDeadline+s.Recovery:
		return Lost{} // suspended (S14)
	default:
		return Lost{DeadlinePassed, o.record.Holder}
	}
}

// hold decides for a holder that means to stay one.
func (s *state) hold() decision {
	switch {
	case s.seen.stale:
		return decision{do: get}
	case !s.asWritten():
		return decision{do: renew} // deleted, edited, or a write of ours whose reply was lost: put it right
	default:
		return decision{do: renew, at: s.own.sent.Add(s.Interval())}
	}
}

// asWritten reports whether the record is just what this candidate wrote last.
func (s *state) asWritten() bool { return s.seen.exists && s.seen.record.Claim == s.own.wrote.Claim }

// letGo decides for a holder whose callback has returned (S8).
func (s *state) letGo() decision {
	switch o := &s.seen; {
	case s.released():
		return decision{do: done} // answered, whatever a policy has made of it
	case o.stale:
		return decision{do: get}
	case !o.exists, o.record.Blank(), o.record.Released(), !s.owns():
		return decision{do: done}
	default:
		return decision{do: release}
	}
}

// released reports whether the last write known to have been applied was a release.
func (s *state) released() bool { return s.own.wrote.Renewed != 0 && s.own.wrote.Holder == "" }

// follow decides for whoever only wants to know who leads, whose last answered GET was sent at asked. When a record
// expires, or has not changed for long, it asks: the watch may be dead.
func (s *state) follow(asked Instant) decision {
	switch {
	case !s.seen.known() || s.seen.stale:
		return decision{do: get}
	case asked.Before(s.seen.expires):
		return decision{do: get, at: s.seen.expires}
	default:
		return decision{do: get, at: asked.Add(time.Minute)}
	}
}
