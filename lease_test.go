package elector

import (
	"context"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	cfg   = timing{identity: "me", leaseDuration: 15 * time.Second, renewDeadline: 10 * time.Second, retryPeriod: 2 * time.Second}
	epoch = time.Now()
)

func at(d time.Duration) time.Time { return epoch.Add(d) }

const s = time.Second

// A record is a Lease for step tables.
type record struct {
	version     int
	holder      string
	seconds     int32
	acquired    int64
	renewed     int64
	transitions int32
	created     int64 // seconds
	labels      map[string]string
}

func (r record) lease() *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Labels: r.labels}}
	if r.version != 0 {
		l.ResourceVersion = strconv.Itoa(r.version)
	}
	l.CreationTimestamp = metav1.Unix(r.created, 0)
	return claim{r.holder, r.seconds, r.acquired, r.renewed, r.transitions}.onto(l, nil)
}

// A step is something that happens, and the decision that follows.
type step struct {
	at   time.Duration
	does string // what happens, for the reader
	see  *record
	gone bool
	wins bool // the record seen is the answer to this candidate's own write
	tell func(o *observed, t *tenure)
	want decision
}

func waits(d time.Duration) decision      { return decision{do: acquire, at: at(d)} }
func renews(d time.Duration) decision     { return decision{do: renew, at: at(d)} }
func stops(r Reason, who string) decision { return decision{do: stop, lost: &LostError{r, who}} }
func now(v action) decision               { return decision{do: v} }
func in(p phase) func(*observed, *tenure) { return func(_ *observed, t *tenure) { t.phase = p } }

// run plays the steps, and compares each decision with the one wanted.
func run(t *testing.T, steps []step) {
	t.Helper()
	var o observed
	var own tenure
	for i, st := range steps {
		if st.see != nil {
			l := st.see.lease()
			if st.wins {
				own = own.applied(claimOf(l), l, at(st.at))
			}
			o = o.see(l, time.Time{}, at(st.at))
		}
		if st.gone {
			o = o.gone(0, at(st.at), at(st.at))
		}
		own = own.saw(o, cfg.identity)
		if st.tell != nil {
			st.tell(&o, &own)
		}
		got := decide(cfg, o, own, at(st.at))
		require.Equal(t, st.want, got, "step %d at %v: %s", i, st.at, st.does)
	}
}

func TestDecisions(t *testing.T) {
	theirs := record{version: 1, holder: "them", seconds: 15, acquired: 100, renewed: 100}
	theirsRenewed := record{version: 2, holder: "them", seconds: 15, acquired: 100, renewed: 200}
	released := record{version: 3, seconds: 1, acquired: 100, renewed: 300}
	mine := record{version: 4, holder: "me", seconds: 15, acquired: 400, renewed: 400}
	mineRenewed := record{version: 5, holder: "me", seconds: 15, acquired: 400, renewed: 500}
	edited := func(r record, f func(*record)) *record { r.version++; f(&r); return &r }
	doubting := func(r record) func(*observed, *tenure) {
		return func(_ *observed, t *tenure) { t.unconfirmed = []claim{claimOf(r.lease())} }
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
			{at: 10 * s, does: "labels", see: edited(theirsRenewed, func(r *record) { r.labels = map[string]string{"a": "b"} }), want: waits(18 * s)},
			{at: 18 * s, does: "expired", want: waits(18 * s)},
		},
		"a record that says nothing of its duration binds for the usual one": {
			{does: "see", see: edited(theirs, func(r *record) { r.seconds = 0 }), want: waits(15 * s)},
		},
		"a release frees the Lease at once": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "released", see: &released, want: now(acquire)},
		},
		"a blanked out holder is no release": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "kubectl edit", see: edited(theirs, func(r *record) { r.holder = "" }), want: waits(16 * s)},
			{at: 2 * s, does: "to a second", see: edited(theirs, func(r *record) { r.holder = ""; r.seconds = 1; r.version += 2 }), want: waits(17 * s)},
		},
		"a holder blanked out after a renewal that was not seen is no release either": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "kubectl edit", see: edited(theirsRenewed, func(r *record) { r.holder = "" }), want: waits(16 * s)},
		},
		"nor is one that was blanked out before anything was seen": {
			{does: "see", see: edited(theirs, func(r *record) { r.holder = "" }), want: waits(15 * s)},
		},
		"an edit lengthens patience but never shortens it": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "shorter", see: edited(theirs, func(r *record) { r.seconds = 1 }), want: waits(16 * s)},
			{at: 2 * s, does: "longer", see: edited(theirs, func(r *record) { r.seconds = 60; r.version++ }), want: waits(62 * s)},
			{at: 3 * s, does: "the holder sets it right", see: edited(theirsRenewed, func(r *record) { r.version += 5 }), want: waits(18 * s)},
		},
		"another holder does not shorten what the one before was promised": {
			{does: "see", see: edited(theirs, func(r *record) { r.seconds = 60; r.version-- }), want: waits(60 * s)},
			{at: 1 * s, does: "another", see: &record{version: 2, holder: "else", seconds: 5, acquired: 9, renewed: 9}, want: waits(61 * s)},
		},
		"a deleted Lease binds until it would have expired (S6)": {
			{does: "see", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "deleted, seen by the watch", tell: func(o *observed, _ *tenure) { *o = o.gone(8, time.Time{}, at(1*s)) }, want: waits(15 * s)},
			{at: 2 * s, does: "made anew, blank", see: &record{version: 9, seconds: 0}, want: waits(15 * s)},
			{at: 3 * s, does: "found missing: what was deleted may be newer", gone: true, want: waits(18 * s)},
			{at: 4 * s, does: "still missing", gone: true, want: waits(18 * s)},
		},
		"an API that has gone back in time is believed when asked": {
			{does: "see", see: &theirsRenewed, want: waits(15 * s)},
			{at: 1 * s, does: "the answer to a later request", tell: func(o *observed, _ *tenure) {
				*o = o.see(theirs.lease(), at(1*s), at(1*s))
			}, want: waits(16 * s)},
		},
		"a restored release frees nothing, though the Lease was deleted before the restore (S3, S6)": {
			{does: "see", see: &mineRenewed, want: waits(15 * s)},
			{at: 1 * s, does: "deleted, shown by the watch", tell: func(o *observed, _ *tenure) { *o = o.gone(6, time.Time{}, at(1*s)) }, want: waits(15 * s)},
			{at: 2 * s, does: "the answer to a later request", tell: func(o *observed, _ *tenure) {
				*o = o.see(released.lease(), at(2*s), at(2*s))
			}, want: waits(15 * s)},
		},
		"a restored release that somebody has edited since frees nothing: it is of an earlier term (S3)": {
			{does: "see", see: &record{version: 4, holder: "them", seconds: 15, acquired: 400, renewed: 500, transitions: 3}, want: waits(15 * s)},
			{at: 1 * s, does: "the restored release, annotated", see: &record{version: 9, seconds: 1, acquired: 300, renewed: 300, transitions: 2}, want: waits(15 * s)},
			{at: 2 * s, does: "annotated again", see: &record{version: 10, seconds: 1, acquired: 300, renewed: 300, transitions: 2}, want: waits(15 * s)},
		},
		"a restored release of a Lease that was created earlier frees nothing, seen or deleted in between (S3)": {
			{does: "see", see: &record{version: 4, holder: "them", seconds: 15, acquired: 400, renewed: 500, created: 200}, want: waits(15 * s)},
			{at: 1 * s, does: "the older Lease, annotated", see: &record{version: 9, seconds: 1, acquired: 300, renewed: 300, transitions: 2, created: 100}, want: waits(15 * s)},
		},
		"a restored release frees nothing after a deletion either, though it was edited (S3, S6)": {
			{does: "see", see: &record{version: 4, holder: "them", seconds: 15, acquired: 400, renewed: 500, created: 200}, want: waits(15 * s)},
			{at: 1 * s, does: "deleted, shown by the watch", tell: func(o *observed, _ *tenure) { *o = o.gone(6, time.Time{}, at(1*s)) }, want: waits(15 * s)},
			{at: 2 * s, does: "the older Lease, annotated", see: &record{version: 9, seconds: 1, acquired: 300, renewed: 300, created: 100}, want: waits(15 * s)},
		},
		"a release of the term that was seen, or of a later one, frees": {
			{does: "see", see: &record{version: 4, holder: "them", seconds: 15, acquired: 400, renewed: 500, transitions: 3}, want: waits(15 * s)},
			{at: 1 * s, does: "its release", see: &record{version: 5, seconds: 1, acquired: 600, renewed: 600, transitions: 3}, want: now(acquire)},
			{at: 2 * s, does: "the release of a term that was not seen", see: &record{version: 9, seconds: 1, acquired: 500, renewed: 500, transitions: 4}, want: now(acquire)},
		},
		"a refused write makes it read": {
			{does: "see", see: &released, want: now(acquire)},
			{at: 1 * s, does: "409", tell: func(o *observed, _ *tenure) { o.stale = true }, want: now(get)},
			{at: 2 * s, does: "the winner", see: &mineRenewed, want: waits(17 * s)},
		},
		"a record with our name that we did not write is somebody else's (S5)": {
			{does: "see", see: &mine, want: waits(15 * s)},
		},
		"its own last record does not hold up a candidate whose term is over": {
			{does: "see", see: &mine, tell: func(_ *observed, t *tenure) { t.previous = []claim{claimOf(mine.lease())} }, want: now(acquire)},
			{at: 1 * s, does: "after StepDown", tell: func(_ *observed, t *tenure) { t.sitOut = at(9 * s) }, want: waits(9 * s)},
			{at: 2 * s, does: "somebody else's", see: &mineRenewed, want: waits(17 * s)},
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
			{does: "see", see: &released, tell: func(_ *observed, t *tenure) { t.sitOut = at(9 * s) }, want: waits(9 * s)},
		},
		"a leader renews every RetryPeriod and stops at its end": {
			{does: "win", see: &mine, wins: true, tell: in(leading), want: renews(2 * s)},
			{at: 4 * s, does: "renewed", see: &mineRenewed, wins: true, want: renews(6 * s)},
			{at: 14*s - 1, does: "nothing helped", want: renews(6 * s)},
			{at: 14 * s, does: "the deadline", want: stops(ReasonDeadlinePassed, "me")},
		},
		"a leader acts on another holder at once (S7)": {
			{does: "win", see: &mine, wins: true, tell: in(leading), want: renews(2 * s)},
			{at: 1 * s, does: "taken over", see: edited(mine, func(r *record) { r.holder = "them" }), want: stops(ReasonTakenOver, "them")},
		},
		"a leader that was taken over and released meanwhile has lost": {
			{does: "win", see: &mine, wins: true, tell: in(leading), want: renews(2 * s)},
			{at: 1 * s, does: "released by another", see: &record{version: 7, seconds: 1, acquired: 900, renewed: 900}, want: stops(ReasonTakenOver, "")},
		},
		"a leader knows a namesake by what it wrote (S5)": {
			{does: "win", see: &mine, wins: true, tell: in(leading), want: renews(2 * s)},
			{at: 1 * s, does: "a namesake", see: edited(mine, func(r *record) { r.acquired, r.renewed = 450, 450 }), want: stops(ReasonDuplicateIdentity, "me")},
		},
		"a leader sets right what somebody edited": {
			{does: "win", see: &mine, wins: true, tell: in(leading), want: renews(2 * s)},
			{at: 1 * s, does: "labels", see: edited(mine, func(r *record) { r.labels = map[string]string{"a": "b"} }), want: renews(2 * s)},
			{at: 2 * s, does: "duration", see: edited(mine, func(r *record) { r.seconds = 1; r.version++ }), want: now(renew)},
			{at: 2 * s, does: "holder", see: edited(mine, func(r *record) { r.holder = ""; r.version += 2 }), want: now(renew)},
			{at: 2 * s, does: "deleted", gone: true, want: now(renew)},
			{at: 3 * s, does: "made anew, blank", see: &record{version: 9}, want: now(renew)},
			{at: 3 * s, does: "409", tell: func(o *observed, _ *tenure) { o.stale = true }, want: now(get)},
			{at: 10 * s, does: "to no avail", gone: true, want: stops(ReasonDeleted, "")},
		},
		"a renewal whose reply was lost is confirmed (S5)": {
			{does: "win", see: &mine, wins: true, tell: in(leading), want: renews(2 * s)},
			{at: 4 * s, does: "no reply", tell: doubting(mineRenewed), want: renews(2 * s)},
			{at: 5 * s, does: "it was applied", see: &mineRenewed, want: now(renew)},
			{at: 10 * s, does: "not confirmed in time (S1)", want: stops(ReasonDeadlinePassed, "me")},
		},
		"while the callback drains the lease is kept, whatever the time (S9)": {
			{does: "win", see: &mine, wins: true, tell: in(draining), want: renews(2 * s)},
			{at: 60 * s, does: "long expired", want: renews(2 * s)},
			{at: 62 * s, does: "another's", see: &record{version: 9, holder: "them", seconds: 15, acquired: 900, renewed: 900}, want: now(idle)},
			{at: 63 * s, does: "that one deleted", gone: true, want: now(idle)},
		},
		"while the callback drains a deleted Lease is put back until it would have expired (S6, S9)": {
			{does: "win", see: &mine, wins: true, tell: in(draining), want: renews(2 * s)},
			{at: 14 * s, does: "deleted", gone: true, want: now(renew)},
			{at: 15 * s, does: "it may be another's that was deleted since", want: now(idle)},
		},
		"but not after another's was seen (S6)": {
			{does: "win", see: &mine, wins: true, tell: in(draining), want: renews(2 * s)},
			{at: 2 * s, does: "another's", see: edited(theirs, func(r *record) { r.version = 9 }), want: now(idle)},
			{at: 3 * s, does: "that one deleted", gone: true, want: now(idle)},
		},
		"a renewal takes nothing back that an earlier one has promised (S3)": {
			{does: "theirs", see: &theirs, want: waits(15 * s)},
			{at: 1 * s, does: "a short one", see: edited(theirs, func(r *record) { r.version++; r.renewed++; r.seconds = 1 }), want: waits(16 * s)},
			{at: 2 * s, does: "another", see: edited(theirs, func(r *record) { r.version += 2; r.renewed += 2; r.seconds = 1 }), want: waits(16 * s)},
			{at: 14 * s, does: "and another", see: edited(theirs, func(r *record) { r.version += 3; r.renewed += 3; r.seconds = 1 }), want: waits(16 * s)},
			{at: 15500 * time.Millisecond, does: "the last", see: edited(theirs, func(r *record) { r.version += 4; r.renewed += 4; r.seconds = 1 }), want: waits(16500 * time.Millisecond)},
		},
		"what is ours is released, and nothing else (S8)": {
			{does: "win", see: &mine, wins: true, tell: in(releasing), want: now(release)},
			{at: 1 * s, does: "409", tell: func(o *observed, _ *tenure) { o.stale = true }, want: now(get)},
			{at: 1 * s, does: "labels", see: edited(mine, func(r *record) { r.labels = map[string]string{"a": "b"} }), want: now(release)},
			{at: 2 * s, does: "a namesake's", see: edited(mine, func(r *record) { r.version++; r.acquired, r.renewed = 450, 450 }), want: now(done)},
			{at: 3 * s, does: "another's", see: edited(theirs, func(r *record) { r.version = 9 }), want: now(done)},
			{at: 3 * s, does: "nobody's", gone: true, want: now(done)},
		},
		"a release whose reply was lost is recognised": {
			{does: "win", see: &mine, wins: true, tell: in(releasing), want: now(release)},
			{does: "no reply", tell: doubting(released), want: now(release)},
			{at: 1 * s, does: "it was applied", see: edited(released, func(r *record) { r.version = 9 }), want: now(done)},
		},
	} {
		t.Run(name, func(t *testing.T) { run(t, steps) })
	}
}

// wallAhead returns t as it would be read had the wall clock gone on by d while the monotonic one stood still, as it does
// while a machine is suspended. Package time has no way to make one; this relies on how it keeps the two in a Time.
func wallAhead(t *testing.T, from time.Time, d time.Duration) time.Time {
	later := from
	*(*uint64)(unsafe.Pointer(&later)) += uint64(d/time.Second) << 30
	require.Zero(t, later.Sub(from), "the monotonic clock stood still")
	require.Equal(t, d, later.Round(0).Sub(from.Round(0)), "the wall clock went on")
	return later
}

func TestASuspendedMachineNoticesOnWaking(t *testing.T) {
	sent := time.Now()
	woken := wallAhead(t, sent, time.Hour)
	assert.Equal(t, time.Hour, age(sent, woken))
	assert.Equal(t, 4*s, age(sent, sent.Add(4*s)))
	assert.Equal(t, time.Duration(0), age(woken, sent), "a wall clock set back takes nothing away")

	suspended := newTerm(&Elector{timing: cfg}, 1, sent)
	assert.True(t, suspended.validAt(sent))
	assert.False(t, suspended.validAt(woken), "though no timer has run")

	o := observed{}.see(record{version: 1, holder: "me", seconds: 15, acquired: 1, renewed: 1}.lease(), time.Time{}, sent)
	own := tenure{phase: leading, wrote: o.claim, sent: sent}
	assert.Equal(t, renew, decide(cfg, o, own, sent).do)
	assert.Equal(t, stop, decide(cfg, o, own, woken).do)
}

func TestAReplyTakenInBeforeTheTimerThatItComesTooLateForDoesNotReviveTheTerm(t *testing.T) {
	l := &activeTerm{term: newTerm(&Elector{timing: cfg}, 1, time.Now().Add(-cfg.renewDeadline))}
	l.ctx, l.cancel = context.WithCancelCause(t.Context())
	l.deadline, l.alarm = time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	require.False(t, l.term.Valid())
	l.renewed(time.Now())
	assert.False(t, l.term.Valid())
	assert.ErrorIs(t, context.Cause(l.ctx), ErrLost)
}

func TestAStandbysPatienceGoesByTheMonotonicClockAlone(t *testing.T) {
	seen := time.Now()
	o := observed{}.see(record{version: 1, holder: "them", seconds: 15, acquired: 1, renewed: 1}.lease(), time.Time{}, seen)
	assert.True(t, decide(cfg, o, tenure{}, wallAhead(t, seen, time.Hour)).at.After(wallAhead(t, seen, time.Hour)))
}

func TestWritesOfOneMillisecondDiffer(t *testing.T) {
	now := time.Now()
	var o observed
	own := tenure{}
	o = o.see(own.next(cfg, o, acquire, now, 999_999).onto(&coordinationv1.Lease{}, nil), time.Time{}, now)
	own.wrote = o.claim
	for salt := range int64(2000) {
		c := own.next(cfg, o, renew, now, salt)
		require.NotEqual(t, o.claim.renewed, c.renewed)
		require.Equal(t, o.claim.acquired, c.acquired)
		win := tenure{}.next(cfg, o, acquire, now, salt*997)
		require.LessOrEqual(t, win.acquired, win.renewed, "nothing is renewed before it is acquired")
	}
}

func TestTransitionsDoNotOverflow(t *testing.T) {
	o := observed{}.see(record{version: 1, holder: "x", seconds: 1, acquired: 1, renewed: 1, transitions: math.MaxInt32}.lease(), time.Time{}, epoch)
	assert.Equal(t, int32(math.MaxInt32), tenure{}.next(cfg, o, acquire, at(20*s), 0).transitions)
}

// FuzzDecide plays random histories, and checks after each event what must hold whatever happened.
func FuzzDecide(f *testing.F) {
	for seed := range uint64(64) {
		f.Add(seed, uint16(200))
	}
	f.Fuzz(func(t *testing.T, seed uint64, length uint16) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := &history{rng: rng, clock: epoch}
		for range min(length, 500) {
			h.event()
			checkDecision(t, h)
		}
	})
}

// What FuzzDecide checks is worth as much as the states it reaches.
func TestRandomHistoriesReachEveryState(t *testing.T) {
	states := map[string]func(h *history) bool{
		"standing by":       func(h *history) bool { return h.own.phase == standingBy },
		"leading":           func(h *history) bool { return h.own.phase == leading },
		"draining":          func(h *history) bool { return h.own.phase == draining },
		"releasing":         func(h *history) bool { return h.own.phase == releasing },
		"write unconfirmed": func(h *history) bool { return len(h.own.unconfirmed) > 0 },
		"win adopted":       func(h *history) bool { return h.own.adopted > 0 },
		"adopted too often": func(h *history) bool { return h.own.adopted == maxAdopted },
		"own previous term": func(h *history) bool { return len(h.own.previous) > 0 },
		"overtaken":         func(h *history) bool { return h.own.overtaken },
		"no Lease":          func(h *history) bool { return h.o.known() && h.o.lease == nil },
		"stale":             func(h *history) bool { return h.o.stale },
	}
	const histories, events = 500, 200
	reached := map[string]int{}
	for seed := range uint64(histories) {
		h := &history{rng: rand.New(rand.NewPCG(seed, 1)), clock: epoch}
		for range events {
			h.event()
			for name, is := range states {
				if is(h) {
					reached[name]++
				}
			}
		}
	}
	for name := range states {
		t.Logf("%-18s %6d of %d events", name, reached[name], histories*events)
		assert.NotZero(t, reached[name], name)
	}
}

// A history is one candidate, and a Lease that everybody writes to.
type history struct {
	rng     *rand.Rand
	clock   time.Time
	version int
	lease   *coordinationv1.Lease // on the server
	o       observed
	own     tenure
}

func (h *history) store(c claim) {
	h.version++
	base := h.lease
	if base == nil {
		base = &coordinationv1.Lease{}
	}
	h.lease = c.onto(base, nil)
	h.lease.ResourceVersion = strconv.Itoa(h.version)
}

// event lets something happen on the server, or lets the candidate see it, or act.
func (h *history) event() {
	h.clock = h.clock.Add(time.Duration(h.rng.Int64N(int64(6 * s))))
	switch h.rng.IntN(9) {
	case 0: // another candidate takes or renews
		h.store(claim{"them", int32(h.rng.IntN(30)), h.rng.Int64N(9), h.clock.UnixMicro(), int32(h.rng.IntN(9))})
	case 1: // an edit
		if h.lease != nil {
			c := claimOf(h.lease)
			c.seconds, c.holder = int32(h.rng.IntN(30)), []string{"", "me", "them", c.holder}[h.rng.IntN(4)]
			h.store(c)
		}
	case 2:
		h.lease = nil
	case 3, 4, 5:
		h.look()
	default:
		h.act()
	}
}

func (h *history) look() {
	if h.lease == nil {
		h.o = h.o.gone(0, h.clock, h.clock)
	} else {
		h.o = h.o.see(h.lease, h.clock, h.clock)
	}
	h.own = h.own.saw(h.o, cfg.identity)
}

// act carries out what is decided, as the loop does; now and then the reply is lost, or the callback returns.
func (h *history) act() {
	d := decide(cfg, h.o, h.own, h.clock)
	if d.at.After(h.clock) {
		h.clock = d.at
		d = decide(cfg, h.o, h.own, h.clock)
	}
	switch d.do {
	case get:
		h.look()
	case lead:
		h.own.phase = leading
	case stop:
		h.own.phase = draining
	case done:
		h.own = h.own.afterwards(h.o, cfg.identity)
	case acquire, renew, release:
		h.write(d.do)
	}
	if (h.own.phase == leading || h.own.phase == draining) && h.rng.IntN(8) == 0 {
		h.own.phase = releasing
	}
}

func (h *history) write(do action) {
	c, sent := h.own.next(cfg, h.o, do, h.clock, h.rng.Int64N(1e6)), h.clock
	h.own = h.own.sending(h.o, do, c, sent)
	sameVersion := h.lease == nil && h.o.lease == nil || h.lease != nil && h.o.lease != nil && h.lease.ResourceVersion == h.o.lease.ResourceVersion
	if !sameVersion {
		h.o.stale = true
		return
	}
	h.store(c)
	if h.rng.IntN(4) == 0 {
		h.o.stale = true // the reply is lost
		return
	}
	h.own = h.own.applied(c, h.lease, sent)
	h.o = h.o.see(h.lease, sent, h.clock)
	h.own = h.own.saw(h.o, cfg.identity)
}

func checkDecision(t *testing.T, h *history) {
	o, own, now := h.o, h.own, h.clock
	d := decide(cfg, o, own, now)
	due := !d.at.After(now)
	ours := o.lease != nil && own.owns(o, cfg.identity)
	mine := ours || len(matching(own.previous, o)) > 0 && o.claim.holder == cfg.identity
	switch {
	case d.do == acquire && due && now.Before(o.expires) && !mine:
		t.Fatalf("takes a Lease that binds for %v", o.expires.Sub(now))
	case d.do == lead && (now.Sub(own.sent) >= cfg.renewDeadline/2 || o.claim != own.wrote && !own.mayHaveWritten(o.claim)):
		t.Fatal("leads on a write that is too old, or not the record")
	case own.phase == leading && now.Sub(own.sent) >= cfg.renewDeadline && d.do != stop:
		t.Fatal("goes on past its deadline")
	case own.phase == leading && o.claim.holder != "me" && o.claim.holder != "" && o.lease != nil && d.do != stop:
		t.Fatal("goes on while another holds the Lease")
	case d.do == release && (own.phase != releasing || !ours):
		t.Fatal("releases what is not its own, or while its callback runs")
	case (d.do == acquire || d.do == lead) && own.phase != standingBy, (d.do == renew || d.do == stop) && own.phase == standingBy:
		t.Fatalf("%v in phase %v", d.do, own.phase)
	case d.do == stop && (d.lost == nil || d.lost.Reason == 0):
		t.Fatal("stops without a reason")
	}
	if d.do != acquire && d.do != renew && d.do != release {
		return
	}
	c := own.next(cfg, o, d.do, now, 5)
	if c.renewed == 0 || c.acquired == 0 || c.transitions < 0 || (d.do == release) != (c.holder == "" && c.seconds == 1) {
		t.Fatalf("%v would write %+v", d.do, c)
	}
}

func TestAnOverrunIsReportedOnWakingThoughItsTimerStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		e := &Elector{timing: cfg, opts: Options{Metrics: noMetrics{}, OnOverrun: func(Term) { told++ }}}
		l := &activeTerm{term: newTerm(e, 1, time.Now().Add(-20*time.Second)), outer: t.Context()}
		c := newCandidate(e, t.Context())
		c.own = tenure{phase: draining, sent: l.term.authority.Load().sent}
		for range 2 {
			c.oversee(l, time.Now())
			synctest.Wait()
		}
		assert.Equal(t, 1, told)
	})
}

// Its user may wait for it, as after StepDown.
func TestATermThatIsGivenUpAsItBeginsHasItsCallback(t *testing.T) {
	e := &Elector{timing: cfg, opts: Options{Metrics: noMetrics{}}}
	for name, test := range map[string]struct {
		end  func(l *activeTerm)
		want bool
	}{
		"given up": {func(l *activeTerm) { l.cancel(&LostError{Reason: ReasonSteppedDown}) }, true},
		"lost":     {func(l *activeTerm) { l.lose(&LostError{Reason: ReasonTakenOver}) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := &activeTerm{term: newTerm(e, 1, time.Now()), returned: make(chan struct{})}
			l.ctx, l.cancel = context.WithCancelCause(t.Context())
			test.end(l)
			called := false
			l.run(func(context.Context) error { called = true; return nil })
			assert.Equal(t, test.want, called)
			assert.NoError(t, l.result)
			assert.ErrorIs(t, l.cause, ErrLost)
		})
	}
}
