package protocol

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Decisions, one step after the other. What is seen and written is given; what is sent for it, and when, is in
// machine_test.go.

var (
	cfg   = Config{Identity: "me", LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second}
	epoch = Instant{Mono: time.Hour, Wall: 1_000_000 * time.Hour}
)

func at(d time.Duration) Instant { return epoch.Add(d) }

const s = time.Second

// A step is something that happens, and the decision that follows.
type step struct {
	at   time.Duration
	does string // what happens, for the reader
	see  *Record
	gone bool
	wins bool // the record seen is the answer to this candidate's own write
	tell func(st *state)
	want decision
}

func waits(d time.Duration) decision      { return decision{do: acquire, at: at(d)} }
func renews(d time.Duration) decision     { return decision{do: renew, at: at(d)} }
func stops(r Reason, who string) decision { return decision{do: stop, lost: Lost{r, who}} }
func now(v action) decision               { return decision{do: v} }
func in(p Phase) func(*state)             { return func(st *state) { st.phase = p } }

// run plays the steps, and compares each decision with the one wanted.
func run(t *testing.T, steps []step) {
	t.Helper()
	st := &state{Config: cfg}
	for i, step := range steps {
		now, before := at(step.at), st.seen
		if step.see != nil {
			if step.wins {
				st.own.applied(step.see.Claim, *step.see, now)
			}
			st.seen = st.seen.see(*step.see, Instant{}, now)
		}
		if step.gone {
			st.seen = st.seen.gone(0, now, now)
		}
		st.own.saw(before, st.seen, st.phase, cfg.Identity)
		if step.tell != nil {
			step.tell(st)
		}
		require.Equal(t, step.want, st.decide(now), "step %d at %v: %s", i, step.at, step.does)
	}
}

func TestDecisions(t *testing.T) {
	theirs := Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 100, Renewed: 100}, Version: 1}
	theirsRenewed := Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 100, Renewed: 200}, Version: 2}
	released := Record{Claim: Claim{Seconds: 1, Acquired: 100, Renewed: 300}, Version: 3}
	mine := Record{Claim: Claim{Holder: "me", Seconds: 15, Acquired: 400, Renewed: 400}, Version: 4}
	mineRenewed := Record{Claim: Claim{Holder: "me", Seconds: 15, Acquired: 400, Renewed: 500}, Version: 5}
	edited := func(r Record, f func(*Record)) *Record { r.Version++; f(&r); return &r }
	doubting := func(r Record) func(*state) {
		return func(st *state) { st.own.unconfirmed = []doubt{{r.Claim, at(0)}} }
	}
	for name, steps := range map[string][]step{
		"a candidate that knows nothing reads": {
			{does: "start", want: now(get)},
			{at: 1 * s, does: "there is no Lease", gone: true, want: now(acquire)},
		},
		"a standby waits for the record's duration, from each renewal anew": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 3 * s, does: "renewed", see: &theirsRenewed, want: waits(18 * s)},
			{at: 9 * s, does: "the same again", see: &theirsRenewed, want: waits(18 * s)},
			{at: 9 * s, does: "an older one, late", see: &theirs, want: waits(18 * s)},
			{at: 10 * s, does: "labels", see: edited(theirsRenewed, func(r *Record) { r.Object = "labelled" }), want: waits(18 * s)},
			{at: 18 * s, does: "expired", want: waits(18 * s)},
		},
		"a record that says nothing of its duration binds for the usual one": {
			{does: "see", see: edited(theirs, func(r *Record) { r.Seconds = 0 }), want: waits(15 * s)},
		},
		"a release frees the Lease at once": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "released", see: &released, want: now(acquire)},
		},
		"a blanked out holder is no release": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "kubectl edit", see: edited(theirs, func(r *Record) { r.Holder = "" }), want: waits(16 * s)},
			{at: 2 * s, does: "to a second", see: edited(theirs, func(r *Record) { r.Holder = ""; r.Seconds = 1; r.Version += 2 }), want: waits(17 * s)},
		},
		"a holder blanked out after a renewal that was not seen is no release either": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "kubectl edit", see: edited(theirsRenewed, func(r *Record) { r.Holder = "" }), want: waits(16 * s)},
		},
		"nor is one that was blanked out before anything was seen": {
			{does: "see", see: edited(theirs, func(r *Record) { r.Holder = "" }), want: waits(15 * s)},
		},
		"an edit lengthens patience but never shortens it": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "shorter", see: edited(theirs, func(r *Record) { r.Seconds = 1 }), want: waits(16 * s)},
			{at: 2 * s, does: "longer", see: edited(theirs, func(r *Record) { r.Seconds = 60; r.Version++ }), want: waits(62 * s)},
			{at: 3 * s, does: "the holder sets it right", see: edited(theirsRenewed, func(r *Record) { r.Version += 5 }), want: waits(18 * s)},
		},
		"another holder does not shorten what the one before was promised": {
			{does: "see", see: edited(theirs, func(r *Record) { r.Seconds = 60; r.Version-- }), want: waits(60 * s)},
			{at: 1 * s, does: "another", see: &Record{Claim: Claim{Holder: "else", Seconds: 5, Acquired: 9, Renewed: 9}, Version: 2}, want: waits(61 * s)},
		},
		"even if its own last renewal was shorter": {
			{does: "see", see: edited(theirs, func(r *Record) { r.Seconds = 60; r.Version-- }), want: waits(60 * s)},
			{at: 1 * s, does: "a short renewal", see: edited(theirs, func(r *Record) { r.Renewed++ }), want: waits(61 * s)},
			{at: 2 * s, does: "another", see: &Record{Claim: Claim{Holder: "else", Seconds: 5, Acquired: 9, Renewed: 9}, Version: 3}, want: waits(61 * s)},
		},
		"a Lease that was deleted and made anew unseen binds anew (S6)": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 10 * s, does: "made anew, blank", see: &Record{Version: 9, UID: "v"}, want: waits(25 * s)},
		},
		"the release of a Lease that was made anew unseen frees only what its own holder was promised (S6)": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500, Transitions: 3}, Version: 4, UID: "u", Created: 100}, want: waits(15 * s)},
			{at: 1 * s, does: "its release", see: &Record{Claim: Claim{Seconds: 1, Acquired: 900, Renewed: 900}, Version: 9, UID: "v", Created: 200}, want: waits(16 * s)},
		},
		"and if the deletion was seen, no longer than from then on": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500, Transitions: 3}, Version: 4, UID: "u", Created: 100}, want: waits(15 * s)},
			{at: 1 * s, does: "deleted, shown by the watch", tell: func(st *state) { st.seen = st.seen.gone(6, Instant{}, at(1*s)) }, want: waits(15 * s)},
			{at: 2 * s, does: "another's release", see: &Record{Claim: Claim{Seconds: 1, Acquired: 900, Renewed: 900}, Version: 9, UID: "v", Created: 200}, want: waits(15 * s)},
		},
		"nor does the release of one who won on a Lease that had come back (S3)": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 600, Transitions: 3}, Version: 8, UID: "u"}, want: waits(15 * s)},
			{at: 1 * s, does: "restored, an older one", tell: func(st *state) {
				st.seen = st.seen.see(Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500, Transitions: 3}, Version: 5, UID: "u"}, at(1*s), at(1*s))
			}, want: waits(16 * s)},
			{at: 2 * s, does: "another's win on it", see: &Record{Claim: Claim{Holder: "else", Seconds: 15, Acquired: 700, Renewed: 700, Transitions: 4}, Version: 1009, UID: "u"}, want: waits(17 * s)},
			{at: 3 * s, does: "its release", see: &Record{Claim: Claim{Seconds: 1, Acquired: 900, Renewed: 900, Transitions: 4}, Version: 1010, UID: "u"}, want: waits(16 * s)},
		},
		"even if the win was not seen": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 600, Transitions: 3}, Version: 8, UID: "u"}, want: waits(15 * s)},
			{at: 1 * s, does: "restored, an older one", tell: func(st *state) {
				st.seen = st.seen.see(Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500, Transitions: 3}, Version: 5, UID: "u"}, at(1*s), at(1*s))
			}, want: waits(16 * s)},
			{at: 3 * s, does: "another's release", see: &Record{Claim: Claim{Seconds: 1, Acquired: 900, Renewed: 900, Transitions: 4}, Version: 1010, UID: "u"}, want: waits(16 * s)},
		},
		"nor do the renewals of the holder after that release": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 60, Acquired: 400, Renewed: 500}, Version: 4, UID: "u"}, want: waits(60 * s)},
			{at: 1 * s, does: "made anew unseen, by another", see: &Record{Claim: Claim{Holder: "else", Seconds: 15, Acquired: 700, Renewed: 800}, Version: 9, UID: "v"}, want: waits(61 * s)},
			{at: 2 * s, does: "its release", see: &Record{Claim: Claim{Seconds: 1, Acquired: 900, Renewed: 900}, Version: 10, UID: "v"}, want: waits(61 * s)},
			{at: 3 * s, does: "a third, that knows nothing of the first", see: &Record{Claim: Claim{Holder: "third", Seconds: 15, Acquired: 1900, Renewed: 2000, Transitions: 1}, Version: 11, UID: "v"}, want: waits(61 * s)},
			{at: 5 * s, does: "renewed", see: &Record{Claim: Claim{Holder: "third", Seconds: 15, Acquired: 1900, Renewed: 4000, Transitions: 1}, Version: 12, UID: "v"}, want: waits(61 * s)},
			{at: 55 * s, does: "and later", see: &Record{Claim: Claim{Holder: "third", Seconds: 15, Acquired: 1900, Renewed: 54000, Transitions: 1}, Version: 13, UID: "v"}, want: waits(70 * s)},
		},
		"nor what a blank Lease has bound for in between": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500}, Version: 4, UID: "u"}, want: waits(15 * s)},
			{at: 10 * s, does: "made anew, blank", see: &Record{Version: 9, UID: "v"}, want: waits(25 * s)},
			{at: 11 * s, does: "another's", see: &Record{Claim: Claim{Holder: "else", Seconds: 15, Acquired: 700, Renewed: 701}, Version: 10, UID: "v"}, want: waits(26 * s)},
			{at: 12 * s, does: "its release", see: &Record{Claim: Claim{Seconds: 1, Acquired: 900, Renewed: 900}, Version: 11, UID: "v"}, want: waits(25 * s)},
		},
		"a release of a Lease whose deletion was seen has come back, though somebody has edited it since (S3)": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500}, Version: 4, UID: "u"}, want: waits(15 * s)},
			{at: 1 * s, does: "deleted, shown by the watch", tell: func(st *state) { st.seen = st.seen.gone(6, Instant{}, at(1*s)) }, want: waits(15 * s)},
			{at: 2 * s, does: "restored, annotated", see: &Record{Claim: Claim{Seconds: 1, Acquired: 600, Renewed: 600}, Version: 9, UID: "u"}, want: waits(15 * s)},
		},
		"a win that somebody has edited is put right before it is led on (S5)": {
			{does: "win", see: &mine, wins: true, want: now(lead)},
			{at: 1 * s, does: "edited", see: edited(mine, func(r *Record) { r.Seconds = 60 }), want: now(acquire)},
		},
		"a win in doubt is not tried to be made certain for ever (S5)": {
			{does: "our write", see: &mine, tell: func(st *state) { doubting(mine)(st); st.own.adopted = maxAdopted - 1 }, want: now(acquire)},
			{at: 1 * s, does: "once more in vain", tell: func(st *state) { st.own.adopted = maxAdopted }, want: waits(15 * s)},
		},
		"a deleted Lease binds until it would have expired (S6)": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "deleted, seen by the watch", tell: func(st *state) { st.seen = st.seen.gone(8, Instant{}, at(1*s)) }, want: waits(15 * s)},
			{at: 2 * s, does: "made anew, blank", see: &Record{Claim: Claim{Seconds: 0}, Version: 9}, want: waits(15 * s)},
			{at: 3 * s, does: "found missing: what was deleted may be newer", gone: true, want: waits(18 * s)},
			{at: 4 * s, does: "still missing", gone: true, want: waits(18 * s)},
		},
		"an API that has gone back in time is believed when asked": {
			{does: "see", see: &theirsRenewed, want: waits(15 * s)},
			{at: 1 * s, does: "the answer to a later request", tell: func(st *state) {
				st.seen = st.seen.see(theirs, at(1*s), at(1*s))
			}, want: waits(16 * s)},
		},
		"a restored release frees nothing, though the Lease was deleted before the restore (S3, S6)": {
			{does: "see", see: &mineRenewed, want: waits(15 * s)},
			{at: 1 * s, does: "deleted, shown by the watch", tell: func(st *state) { st.seen = st.seen.gone(6, Instant{}, at(1*s)) }, want: waits(15 * s)},
			{at: 2 * s, does: "the answer to a later request", tell: func(st *state) {
				st.seen = st.seen.see(released, at(2*s), at(2*s))
			}, want: waits(15 * s)},
		},
		"a restored release that somebody has edited since frees nothing: it is of an earlier term (S3)": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500, Transitions: 3}, Version: 4}, want: waits(15 * s)},
			{at: 1 * s, does: "the restored release, annotated", see: &Record{Claim: Claim{Seconds: 1, Acquired: 300, Renewed: 300, Transitions: 2}, Version: 9}, want: waits(15 * s)},
			{at: 2 * s, does: "annotated again", see: &Record{Claim: Claim{Seconds: 1, Acquired: 300, Renewed: 300, Transitions: 2}, Version: 10}, want: waits(15 * s)},
		},
		"a restored release of a Lease that was created earlier frees nothing, seen or deleted in between (S3)": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500}, Version: 4, Created: 200}, want: waits(15 * s)},
			{at: 1 * s, does: "the older Lease, annotated", see: &Record{Claim: Claim{Seconds: 1, Acquired: 300, Renewed: 300, Transitions: 2}, Version: 9, Created: 100}, want: waits(15 * s)},
		},
		"a restored release frees nothing after a deletion either, though it was edited (S3, S6)": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500}, Version: 4, Created: 200}, want: waits(15 * s)},
			{at: 1 * s, does: "deleted, shown by the watch", tell: func(st *state) { st.seen = st.seen.gone(6, Instant{}, at(1*s)) }, want: waits(15 * s)},
			{at: 2 * s, does: "the older Lease, annotated", see: &Record{Claim: Claim{Seconds: 1, Acquired: 300, Renewed: 300}, Version: 9, Created: 100}, want: waits(15 * s)},
		},
		"a release of the term that was seen, or of a later one, frees": {
			{does: "see", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 400, Renewed: 500, Transitions: 3}, Version: 4}, want: waits(15 * s)},
			{at: 1 * s, does: "its release", see: &Record{Claim: Claim{Seconds: 1, Acquired: 600, Renewed: 600, Transitions: 3}, Version: 5}, want: now(acquire)},
			{at: 2 * s, does: "the release of a term that was not seen", see: &Record{Claim: Claim{Seconds: 1, Acquired: 500, Renewed: 500, Transitions: 4}, Version: 9}, want: now(acquire)},
		},
		"a refused write makes it read": {
			{does: "see", see: &released, want: now(acquire)},
			{at: 1 * s, does: "409", tell: func(st *state) { st.seen.stale = true }, want: now(get)},
			{at: 2 * s, does: "the winner", see: &mineRenewed, want: waits(17 * s)},
		},
		"a record with our name that we did not write is somebody else's (S5)": {
			{does: "see", see: &mine, want: waits(15 * s)},
		},
		"its own last record does not hold up a candidate whose term is over": {
			{does: "see", see: &mine, tell: func(st *state) { st.own.over = []Mark{mine.term()} }, want: now(acquire)},
			{at: 1 * s, does: "after StepDown", tell: func(st *state) { st.own.sitOut = at(9 * s) }, want: waits(9 * s)},
			{at: 2 * s, does: "a namesake's", see: &Record{Version: 6, Claim: Claim{Holder: "me", Seconds: 15, Acquired: 777, Renewed: 778}}, want: waits(17 * s)},
		},
		"a win whose reply was lost is confirmed before it counts (S5)": {
			{does: "see", see: &released, want: now(acquire)},
			{does: "no reply", tell: doubting(mine), want: now(acquire)},
			{at: 1 * s, does: "our write", see: &mine, want: now(acquire)},
			{at: 2 * s, does: "confirmed", see: &mineRenewed, wins: true, want: now(lead)},
		},
		"a win whose reply took half of RenewDeadline is confirmed, because it could not be renewed in time (L3)": {
			{does: "win", see: &mine, wins: true, want: now(lead)},
			{at: 5*s - 1, does: "in time", want: now(lead)},
			{at: 5 * s, does: "too late", want: now(acquire)},
		},
		"after StepDown it sits out": {
			{does: "see", see: &released, tell: func(st *state) { st.own.sitOut = at(9 * s) }, want: waits(9 * s)},
		},
		"a leader renews every RetryPeriod and stops at its end": {
			{does: "win", see: &mine, wins: true, tell: in(Leading), want: renews(2 * s)},
			{at: 4 * s, does: "renewed", see: &mineRenewed, wins: true, want: renews(6 * s)},
			{at: 14*s - 1, does: "nothing helped", want: renews(6 * s)},
			{at: 14 * s, does: "the deadline", want: stops(DeadlinePassed, "me")},
		},
		"a leader acts on another holder at once (S7)": {
			{does: "win", see: &mine, wins: true, tell: in(Leading), want: renews(2 * s)},
			{at: 1 * s, does: "taken over", see: edited(mine, func(r *Record) { r.Holder = "them" }), want: stops(TakenOver, "them")},
		},
		"a leader that was taken over and released meanwhile has lost": {
			{does: "win", see: &mine, wins: true, tell: in(Leading), want: renews(2 * s)},
			{at: 1 * s, does: "released by another", see: &Record{Claim: Claim{Seconds: 1, Acquired: 900, Renewed: 900}, Version: 7}, want: stops(TakenOver, "")},
		},
		"a leader knows a namesake by what it wrote (S5)": {
			{does: "win", see: &mine, wins: true, tell: in(Leading), want: renews(2 * s)},
			{at: 1 * s, does: "a namesake", see: edited(mine, func(r *Record) { r.Acquired, r.Renewed = 450, 450 }), want: stops(DuplicateIdentity, "me")},
		},
		"a leader sets right what somebody edited": {
			{does: "win", see: &mine, wins: true, tell: in(Leading), want: renews(2 * s)},
			{at: 1 * s, does: "labels", see: edited(mine, func(r *Record) { r.Object = "labelled" }), want: renews(2 * s)},
			{at: 2 * s, does: "duration", see: edited(mine, func(r *Record) { r.Seconds = 1; r.Version++ }), want: now(renew)},
			{at: 2 * s, does: "holder", see: edited(mine, func(r *Record) { r.Holder = ""; r.Version += 2 }), want: now(renew)},
			{at: 2 * s, does: "deleted", gone: true, want: now(renew)},
			{at: 3 * s, does: "made anew, blank", see: &Record{Version: 9}, want: now(renew)},
			{at: 3 * s, does: "409", tell: func(st *state) { st.seen.stale = true }, want: now(get)},
			{at: 10 * s, does: "to no avail", gone: true, want: stops(Deleted, "")},
		},
		"a renewal whose reply was lost is confirmed (S5)": {
			{does: "win", see: &mine, wins: true, tell: in(Leading), want: renews(2 * s)},
			{at: 4 * s, does: "no reply", tell: doubting(mineRenewed), want: renews(2 * s)},
			{at: 5 * s, does: "it was applied", see: &mineRenewed, want: now(renew)},
			{at: 10 * s, does: "not confirmed in time (S1)", want: stops(DeadlinePassed, "me")},
		},
		"while the callback drains the lease is kept, whatever the time (S9)": {
			{does: "win", see: &mine, wins: true, tell: in(Draining), want: renews(2 * s)},
			{at: 60 * s, does: "long expired", want: renews(2 * s)},
			{at: 62 * s, does: "another's", see: &Record{Claim: Claim{Holder: "them", Seconds: 15, Acquired: 900, Renewed: 900}, Version: 9}, want: now(idle)},
			{at: 63 * s, does: "that one deleted", gone: true, want: now(idle)},
		},
		"while the callback drains a deleted Lease is put back until it would have expired (S6, S9)": {
			{does: "win", see: &mine, wins: true, tell: in(Draining), want: renews(2 * s)},
			{at: 14 * s, does: "deleted", gone: true, want: now(renew)},
			{at: 15 * s, does: "it may be another's that was deleted since", want: now(idle)},
		},
		"but not after another's was seen (S6)": {
			{does: "win", see: &mine, wins: true, tell: in(Draining), want: renews(2 * s)},
			{at: 2 * s, does: "another's", see: edited(theirs, func(r *Record) { r.Version = 9 }), want: now(idle)},
			{at: 3 * s, does: "that one deleted", gone: true, want: now(idle)},
		},
		"a renewal takes nothing back that an earlier one has promised (S3)": {
			{does: "theirs", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "a short one", see: edited(theirs, func(r *Record) { r.Version++; r.Renewed++; r.Seconds = 1 }), want: waits(16 * s)},
			{at: 2 * s, does: "another", see: edited(theirs, func(r *Record) { r.Version += 2; r.Renewed += 2; r.Seconds = 1 }), want: waits(16 * s)},
			{at: 14 * s, does: "and another", see: edited(theirs, func(r *Record) { r.Version += 3; r.Renewed += 3; r.Seconds = 1 }), want: waits(16 * s)},
			{at: 15500 * time.Millisecond, does: "the last", see: edited(theirs, func(r *Record) { r.Version += 4; r.Renewed += 4; r.Seconds = 1 }), want: waits(16500 * time.Millisecond)},
		},
		"what is ours is released, and nothing else (S8)": {
			{does: "win", see: &mine, wins: true, tell: in(Releasing), want: now(release)},
			{at: 1 * s, does: "409", tell: func(st *state) { st.seen.stale = true }, want: now(get)},
			{at: 1 * s, does: "labels", see: edited(mine, func(r *Record) { r.Object = "labelled" }), want: now(release)},
			{at: 2 * s, does: "a namesake's", see: edited(mine, func(r *Record) { r.Version++; r.Acquired, r.Renewed = 450, 450 }), want: now(done)},
			{at: 3 * s, does: "another's", see: edited(theirs, func(r *Record) { r.Version = 9 }), want: now(done)},
			{at: 3 * s, does: "nobody's", gone: true, want: now(done)},
		},
		"a release whose reply was lost is recognised": {
			{does: "win", see: &mine, wins: true, tell: in(Releasing), want: now(release)},
			{does: "no reply", tell: doubting(released), want: now(release)},
			{at: 1 * s, does: "it was applied", see: edited(released, func(r *Record) { r.Version = 9 }), want: now(done)},
		},
	} {
		t.Run(name, func(t *testing.T) { run(t, steps) })
	}
}

func TestASuspendedMachineNoticesOnWaking(t *testing.T) {
	sent := at(0)
	woken := Instant{sent.Mono, sent.Wall + time.Hour} // the monotonic clock stood still
	require.Equal(t, time.Hour, Age(sent, woken))
	require.Equal(t, 4*s, Age(sent, sent.Add(4*s)))
	require.Zero(t, Age(woken, sent), "a wall clock set back takes nothing away")

	mine := Record{Version: 1, Claim: Claim{Holder: "me", Seconds: 15, Acquired: 1, Renewed: 2}}
	st := &state{Config: cfg, phase: Leading, seen: seen{}.see(mine, Instant{}, sent), own: own{wrote: mine, sent: sent}}
	require.Equal(t, renew, st.decide(sent).do)
	require.Equal(t, stop, st.decide(woken).do)
}

func TestAStandbysPatienceGoesByTheMonotonicClockAlone(t *testing.T) {
	o := seen{}.see(Record{Version: 1, Claim: Claim{Holder: "them", Seconds: 15, Acquired: 1, Renewed: 1}}, Instant{}, at(0))
	st := &state{Config: cfg, seen: o}
	now := Instant{epoch.Mono, epoch.Wall + time.Hour}
	require.True(t, st.decide(now).at.After(now))
}

func TestALeaderRenewsThreeTimesWithinRenewDeadline(t *testing.T) {
	long := cfg
	long.RetryPeriod = 5 * s
	mine := Record{Version: 1, Claim: Claim{Holder: "me", Seconds: 15, Acquired: 400, Renewed: 401}}
	st := &state{Config: long, phase: Leading, seen: seen{}.see(mine, Instant{}, at(0)), own: own{wrote: mine, sent: at(0)}}
	require.Equal(t, renews(long.RenewDeadline/3), st.decide(at(0)))
}

func TestAHolderBlankedOutForAFewSecondsFreesNobody(t *testing.T) {
	theirs := Record{Version: 1, Claim: Claim{Holder: "them", Seconds: 15, Acquired: 100, Renewed: 100}}
	blanked := Record{Version: 3, Claim: Claim{Seconds: 5, Acquired: 100, Renewed: 200}} // after a renewal that was not seen
	run(t, []step{
		{does: "see", see: &theirs, want: waits(15 * s)},
		{at: s, does: "blanked out, and shortened", see: &blanked, want: waits(16 * s)},
	})
}

func TestAWinThatWasNotLedOnProvesNothingOnceAnothersRecordWasSeen(t *testing.T) {
	mine := Record{Version: 4, Claim: Claim{Holder: "me", Seconds: 15, Acquired: 400, Renewed: 401}}
	theirs := Record{Version: 5, Claim: Claim{Holder: "them", Seconds: 15, Acquired: 900, Renewed: 901}}
	again := mine
	again.Version = 6
	run(t, []step{
		{does: "win", see: &mine, wins: true, want: now(lead)},
		{at: s, does: "another's", see: &theirs, want: waits(16 * s)},
		{at: 2 * s, does: "the old record comes back", see: &again, want: waits(17 * s)},
	})
}

func TestAReleaseThatWasAnsweredIsDoneWhateverAPolicyMadeOfIt(t *testing.T) {
	mine := Record{Version: 4, Claim: Claim{Holder: "me", Seconds: 15, Acquired: 400, Renewed: 401}}
	answer := Record{Version: 5, Claim: Claim{Seconds: 10, Acquired: 400, Renewed: 900}} // neither its duration nor its times are a release's
	run(t, []step{
		{does: "win", see: &mine, wins: true, tell: in(Releasing), want: now(release)},
		{at: s, does: "the answer", see: &answer, wins: true, want: now(done)},
	})
}

func TestAnEventOfADeletionThatWasOvertakenIsNotBelieved(t *testing.T) {
	o := seen{}.see(Record{Version: 4, Claim: Claim{Holder: "them", Seconds: 15, Acquired: 1, Renewed: 1}}, Instant{}, at(0))
	require.Equal(t, o, o.gone(3, Instant{}, at(s)))
	require.False(t, o.gone(5, Instant{}, at(s)).exists)
	require.False(t, o.gone(0, at(s), at(s)).exists, "the answer to a later request")
}

func TestARecordThatComesBackAgainIsNoSignOfLife(t *testing.T) {
	o := seen{}.see(rec(1, "them", 100, 200), Instant{}, at(0)).see(rec(2, "them", 100, 300), Instant{}, at(2*s))
	back := o.see(rec(1, "them", 100, 200), at(3*s), at(4*s))
	require.Equal(t, o.quiet(), back.quiet())
	require.Equal(t, o.expires, back.expires)
}

func TestARecordHasComeBackUntilAnotherTermIsSeen(t *testing.T) {
	o := seen{}.see(rec(9, "else", 300, 301), Instant{}, at(0)).see(rec(5, "them", 100, 200), at(s), at(2*s))
	require.True(t, o.back)
	o = o.see(rec(10, "them", 100, 200), Instant{}, at(3*s))
	require.True(t, o.back, "somebody has edited it")
	require.False(t, o.see(rec(11, "them", 400, 400), Instant{}, at(4*s)).back)

	for why, test := range map[string]struct {
		edit func(r *Record)
		back bool
	}{
		"another term by the same count":             {func(r *Record) { r.Holder, r.Acquired = "else", 900_001 }, true},
		"another of the same name by the same count": {func(r *Record) { r.Acquired = 900_001 }, true},
		"another by a higher count":                  {func(r *Record) { r.Holder, r.Acquired, r.Transitions = "else", 900_001, 8 }, false},
		"its holder does not count":                  {func(r *Record) { r.Holder, r.Transitions = "else", 0 }, true},
		"nobody holds it":                            {func(r *Record) { r.Holder = "" }, false},
		"the same term, cut":                         {func(r *Record) { r.Acquired = 800_000 }, false},
		"the same term, without times":               {func(r *Record) { r.Acquired = 0 }, false},
	} {
		last := rec(20, "them", 800_001, 800_002)
		last.Transitions = 7
		next := last
		next.Version, next.Renewed = 21, 900_002
		test.edit(&next)
		require.Equal(t, test.back, seen{}.see(last, Instant{}, at(0)).see(next, Instant{}, at(s)).back, why)
		last.Transitions, next.Transitions = 0, 0
		require.False(t, seen{}.see(last, Instant{}, at(0)).see(next, Instant{}, at(s)).back, "nobody counts: %s", why)
	}

	anew := rec(12, "them", 400, 400)
	o.record.Transitions, anew.UID = 3, "v"
	require.False(t, o.see(anew, Instant{}, at(4*s)).back, "a new Lease counts its terms anew")
}
