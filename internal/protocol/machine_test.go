package protocol

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a machine does, event by event. A rig plays its driver and a server that takes each write as it comes.

type rig struct {
	t *testing.T
	*Machine
	clock   time.Duration
	version uint64
	sent    map[int]Request
	lastReq int // the id of the last request
	watchID int
	given   []int // requests whose ctx has ended, and which have not returned

	did     []string              // what was to be done since it was last read
	effects map[EffectKind]Effect // the last one of each kind since then
}

// newRig is the machine of a candidate that has its watch, and has seen r.
func newRig(t *testing.T, c Config, r Record) *rig {
	c.Identity = "me"
	g := &rig{t: t, Machine: New(c, func(int64) int64 { return 500 }), sent: map[int]Request{}, version: r.Version, effects: map[EffectKind]Effect{}}
	g.step(Event{Kind: Tick})
	g.step(Event{Kind: WatchOpened, ID: g.watchID})
	g.answer(OK, r).show(r)
	g.read()
	return g
}

func (g *rig) at(d time.Duration) *rig { g.clock = d; return g }

func (g *rig) step(ev Event) *rig {
	for _, e := range g.Step(ev, at(g.clock)) {
		g.effects[e.Kind] = e
		g.did = append(g.did, g.describe(e))
	}
	return g
}

func (g *rig) describe(e Effect) string {
	switch e.Kind {
	case Send:
		g.sent[e.ID], g.lastReq = e.Request, e.ID
		what := e.Request.Verb.String()
		if e.Request.Verb != Get {
			what = fmt.Sprintf("%s %q", what, e.Request.Claim.Holder)
		}
		if e.Request.Spare {
			what += " spare"
		}
		return what
	case Cancel:
		g.given = append(g.given, e.ID)
	case Watch:
		g.watchID = e.ID
		return "watch"
	case LoseTerm:
		return fmt.Sprintf("lose %d", e.Lost.Reason)
	}
	return map[EffectKind]string{Cancel: "cancel", Suspect: "suspect", Unwatch: "unwatch", BeginTerm: "begin", RenewTerm: "renewed",
		LeaseMissing: "missing", SuspendTerm: "suspend", ResumeTerm: "resume", StopCallback: "stop", LetGo: "let go", ForgetProof: "",
		PutsBack: "puts back", SawHolder: "", SawNamesake: "namesake", SawOwnName: "own name", Trouble: "trouble", NoTrouble: "no trouble",
		NoWatch: "no watch", WatchAgain: "watch again"}[e.Kind]
}

// read returns what was to be done since it was last called.
func (g *rig) read() string {
	out := strings.Join(strings.FieldsFunc(strings.Join(g.did, "\n"), func(r rune) bool { return r == '\n' }), ", ")
	g.did, g.effects = nil, map[EffectKind]Effect{}
	return out
}

// tick lets the time come, stopping wherever the machine wants to be called.
func (g *rig) tick(until time.Duration) *rig {
	for g.Wake().Before(at(until)) {
		g.clock = max(g.clock, g.Wake().Sub(epoch))
		g.step(Event{Kind: Tick})
	}
	return g.at(until).step(Event{Kind: Tick})
}

// answer answers the last request.
func (g *rig) answer(o Outcome, r Record) *rig {
	return g.step(Event{Kind: Answered, ID: g.lastReq, Outcome: o, Record: r})
}

// take lets the server apply the last request, and answer; the watch shows it, too.
func (g *rig) take() *rig {
	r := g.apply()
	return g.answer(OK, r).show(r)
}

// serve lets the time come, and each write be taken and each GET be answered by r.
func (g *rig) serve(until time.Duration, r Record) *rig {
	for {
		g.tick(min(until, max(g.clock, g.Wake().Sub(epoch))))
		if k := g.calls.awaited(); k != nil && k.do == get {
			g.answer(OK, r)
		} else if k != nil {
			g.take()
		}
		if g.clock == until {
			return g
		}
	}
}

// apply lets the server apply the last request, whose answer is lost.
func (g *rig) apply() Record {
	g.version++
	r := g.sent[g.lastReq].On
	r.Claim, r.Version = g.sent[g.lastReq].Claim, g.version
	return r
}

// show lets the watch show a record.
func (g *rig) show(r Record) *rig {
	g.version = max(g.version, r.Version)
	return g.step(Event{Kind: WatchShowed, ID: g.watchID, Record: r})
}

func rec(version uint64, holder string, acquired, renewed int64) Record {
	return Record{Version: version, UID: "u", Claim: Claim{Holder: holder, Seconds: 15, Acquired: acquired, Renewed: renewed}}
}

var free = Record{Version: 1, UID: "u", Claim: Claim{Seconds: 1, Acquired: 1, Renewed: 1}}

// leader is the rig of a candidate that leads since 1 s.
func leader(t *testing.T, c Config) *rig {
	g := newRig(t, c, free).tick(s)
	require.Equal(t, `update "me"`, g.read())
	g.take()
	require.Equal(t, "begin", g.read())
	return g.show(g.own.wrote)
}

func TestATermBeginsWithTheAnswerToAWriteAndIsRenewed(t *testing.T) {
	g := leader(t, cfg)
	assert.Equal(t, `update "me"`, g.tick(3*s).read())
	assert.Equal(t, "renewed", g.take().read())
}

// L11: after an outage the old holder goes first.

func TestAfterAnOutageAnExpiredLeaseIsLeftToItsHolderForAWhile(t *testing.T) {
	outage := func(g *rig) *rig {
		g.step(Event{Kind: WatchEnded, ID: g.watchID})
		for g.clock < 60*s {
			g.tick(g.Wake().Sub(epoch))
			if strings.Contains(strings.Join(g.did, " "), "update") {
				t.Fatalf("writes at %v while nothing is answered", g.clock)
			}
			if len(g.sent) > 0 && g.calls.awaited() != nil {
				g.answer(Failed, Record{})
			}
		}
		return g
	}
	theirs := rec(5, "them", 100, 200)
	g := outage(newRig(t, cfg, theirs))
	g.tick(g.Wake().Sub(epoch)).answer(OK, theirs)
	back := g.clock
	g.read()
	assert.NotContains(t, g.serve(back+cfg.RenewDeadline/3-time.Millisecond, theirs).read(), "update", "they go first")
	assert.Contains(t, g.serve(back+cfg.RenewDeadline/3+3*s, theirs).read(), "update", "and not for ever")

	g = outage(newRig(t, cfg, theirs))
	g.tick(g.Wake().Sub(epoch)).answer(OK, Record{Version: 6, UID: "u", Claim: Claim{Seconds: 1, Acquired: 300, Renewed: 300}})
	assert.Contains(t, g.tick(g.clock+spread).read(), "update", "a release is for everybody")

	g = outage(newRig(t, cfg, theirs))
	g.step(Event{Kind: Proven, Marks: []Mark{theirs.term()}})
	assert.Contains(t, g.serve(g.clock+5*s, theirs).read(), "update", "nobody waits for the dead")
}

// L10, L11: whoever goes first has to be there in the time that the others give it, whatever has become of its term.
func TestTheHolderOfBeforeAnOutageTriesOftenThatItMayGoFirst(t *testing.T) {
	for name, c := range map[string]Config{"its term was lost": cfg, "its term is suspended": recovering()} {
		for _, silent := range []bool{false, true} {
			g := leader(t, c)
			g.step(Event{Kind: WatchEnded, ID: g.watchID})
			sent, last := 0, 0
			for g.clock < 60*s {
				switch {
				case g.phase == Draining:
					g.step(Event{Kind: Returned})
				case g.phase == Over:
					g.step(Event{Kind: Campaign})
				case len(g.given) > 0:
					g.step(Event{Kind: Answered, ID: g.given[0], Outcome: Unanswered})
					g.given = g.given[1:]
				case !silent && g.calls.awaited() != nil:
					g.answer(Failed, Record{})
				default:
					g.tick(g.Wake().Sub(epoch))
				}
				if g.lastReq != last && g.clock > 45*s {
					sent++
				}
				last = g.lastReq
			}
			assert.GreaterOrEqual(t, sent, 14, "%s, silent: %v", name, silent)
			assert.LessOrEqual(t, sent, 21, "%s, silent: %v: one for each three quarters of RetryPeriod/2 at most", name, silent)
		}
	}
}

// S13: the kubelet's word.

func TestAKubeletsWordFreesJustTheRecordOfTheDead(t *testing.T) {
	theirs := rec(5, "them", 100_001, 200_002)
	word := func(g *rig, m Mark) string {
		return g.at(s).step(Event{Kind: Died, Marks: []Mark{m}}).tick(s + spread).read()
	}
	assert.Equal(t, `update "me"`, word(newRig(t, cfg, theirs), theirs.term()))
	assert.Empty(t, word(newRig(t, cfg, theirs), Mark{"them", 100_000}), "another term of that holder")
	assert.Empty(t, word(newRig(t, cfg, theirs), Mark{"else", 100_001}), "another holder")

	g := newRig(t, cfg, rec(4, "else", 50, 60)).step(Event{Kind: Died, Marks: []Mark{theirs.term()}})
	assert.Equal(t, `update "me"`, g.show(theirs).tick(spread).read(), "the word may come before the record")

	g = newRig(t, cfg, theirs).show(rec(6, "else", 300, 301))
	g.show(rec(7, "them", 100_001, 200_002))
	assert.Empty(t, word(g, theirs.term()), "another has led since, and an old record was put back")

	g = newRig(t, cfg, rec(9, "else", 300, 301)).tick(14 * s)
	g.read()
	g.step(Event{Kind: WatchEnded, ID: g.watchID})
	g.tick(g.Wake().Sub(epoch))
	for g.Status().Holder == "else" {
		g.tick(g.Wake().Sub(epoch)).answer(OK, theirs) // version 5 after 9: etcd was restored
	}
	g.read()
	g.step(Event{Kind: Died, Marks: []Mark{theirs.term()}})
	assert.NotContains(t, g.tick(g.clock+spread).read(), "update", "somebody may have led since")
}

// S14: suspension.

func recovering() Config { c := cfg; c.Recovery = time.Minute; return c }

func TestATermWithoutAnswersIsSuspendedAndResumed(t *testing.T) {
	g := leader(t, recovering())
	for g.clock < 40*s {
		g.tick(g.Wake().Sub(epoch))
		if g.calls.awaited() != nil {
			g.answer(Failed, Record{})
		}
	}
	did := g.read()
	assert.Contains(t, did, "suspend")
	assert.NotContains(t, did, "lose")
	assert.True(t, g.Status().Suspended)
	g.tick(g.Wake().Sub(epoch)).take()
	assert.Contains(t, g.read(), "renewed, resume")
	assert.False(t, g.Status().Suspended)
	assert.Equal(t, Leading, g.phase)
}

func TestASuspendedTermIsLostOnceRecoveryDeadlineHasPassed(t *testing.T) {
	g := leader(t, recovering())
	for g.phase == Leading && g.clock < 100*s {
		g.tick(g.Wake().Sub(epoch))
		if g.calls.awaited() != nil {
			g.answer(Failed, Record{})
		}
	}
	assert.Contains(t, g.read(), fmt.Sprintf("lose %d, stop", DeadlinePassed))
	assert.InDelta(t, 70*s, Age(g.own.sent, g.now), float64(pulse))
}

func TestWhatEndsASuspendedTerm(t *testing.T) {
	for name, c := range map[string]struct {
		event func(g *rig) Event
		want  Reason
	}{
		"another holder":             {func(g *rig) Event { return Event{Kind: WatchShowed, Record: rec(20, "them", 7, 8)} }, TakenOver},
		"its own name without times": {func(g *rig) Event { return Event{Kind: WatchShowed, Record: rec(20, "me", 0, 0)} }, DuplicateIdentity},
		"one of its two times":       {func(g *rig) Event { return Event{Kind: WatchShowed, Record: rec(20, "me", g.own.wrote.Acquired, 9)} }, DuplicateIdentity},
		"a blank record":             {func(g *rig) Event { return Event{Kind: WatchShowed, Record: Record{Version: 20, UID: "v"}} }, Deleted},
		"a deletion":                 {func(g *rig) Event { return Event{Kind: WatchGone, Record: Record{Version: 20}} }, Deleted},
		"to be asked to stop":        {func(g *rig) Event { return Event{Kind: Stop} }, DeadlinePassed},
	} {
		g := leader(t, recovering())
		g.at(12 * s).step(Event{Kind: Tick})
		require.Contains(t, g.read(), "suspend", name)
		ev := c.event(g)
		ev.ID = g.watchID
		assert.Contains(t, g.step(ev).read(), fmt.Sprintf("lose %d", c.want), name)
		assert.Equal(t, Draining, g.phase, name)
	}
}

func TestADeletedLeaseIsNotPutBackByASuspendedHolder(t *testing.T) {
	g := leader(t, recovering())
	g.at(12 * s).step(Event{Kind: Tick}).step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 20}})
	assert.NotContains(t, g.tick(14*s).read(), "create")
}

func TestALeaseThatIsMissingWhenTheTimeIsOverIsLostNotSuspended(t *testing.T) {
	g := leader(t, recovering())
	g.at(2 * s).step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 20}})
	assert.Contains(t, g.at(12*s).step(Event{Kind: Tick}).read(), fmt.Sprintf("lose %d", Deleted))
}

// S5: copies.

func TestAProcessThatWasCopiedEndsItsTermAndThatOfTheCopy(t *testing.T) {
	g := leader(t, cfg)
	mine := g.own.wrote
	g.at(2 * s).show(rec(20, "me", mine.Acquired, mine.Renewed+1_000_001))
	assert.Equal(t, `update "me"`, g.read(), "once it may be an edit by hand: it is put right")
	assert.Equal(t, "renewed", g.take().read())
	mine = g.own.wrote
	g.at(3 * s).show(rec(30, "me", mine.Acquired, mine.Renewed+1_000_001))
	assert.Equal(t, fmt.Sprintf(`update "me", lose %d, stop`, DuplicateIdentity), g.read())
	broken := g.sent[g.lastReq].Claim
	assert.NotEqual(t, mine.Acquired, broken.Acquired, "a term that the copy does not know")
	g.take()
	assert.Empty(t, g.read())
	assert.NotContains(t, g.tick(6*s).read(), "update", "and nobody serves it")
	g.step(Event{Kind: Returned}).step(Event{Kind: Campaign})
	assert.NotContains(t, g.serve(17*s, g.seen.record).read(), "update", "the copy may need as long to stop")
	did := g.serve(25*s, g.seen.record).read()
	assert.Contains(t, did, "begin")
	assert.NotContains(t, did, "lose", "the next term was not copied")
}

// The clock of a copy may be behind: then it finds the other out, or is found out by times that are not its own.
func TestACopyWhoseClockIsBehindIsFoundOut(t *testing.T) {
	g := leader(t, cfg)
	g.serve(9*s, g.own.wrote)
	for i := range 2 {
		mine := g.own.wrote
		g.read()
		g.at(g.clock + s).show(rec(g.version+10, "me", mine.Acquired, mine.Renewed-3_000_001))
		require.Contains(t, g.read(), `update "me"`)
		if i == 0 {
			g.take()
		}
	}
	assert.Equal(t, Draining, g.phase)
}

func TestEditsByHandAreNotTakenForACopy(t *testing.T) {
	for name, edit := range map[string]func(mine Record) Record{
		"its times cut": func(r Record) Record {
			r.Renewed = r.Renewed / 1000 * 1000
			r.Acquired = r.Acquired / 1000 * 1000
			return r
		},
		"an older state": func(r Record) Record { r.Renewed -= 2_000_000; return r },
		"no times":       func(r Record) Record { r.Renewed, r.Acquired = 0, 0; return r },
		"a cut acquireTime and a later renewTime": func(r Record) Record {
			r.Acquired, r.Renewed = r.Acquired/1000*1000, r.Renewed+1_000_001
			return r
		},
		"a later time, rounded": func(r Record) Record { r.Renewed = r.Renewed/1000*1000 + 5_000_000; return r },
	} {
		g := leader(t, cfg)
		for i := range 3 {
			r := edit(g.own.wrote)
			r.Version = g.version + 1
			g.at(time.Duration(i+2) * s).show(r)
			require.Equal(t, `update "me"`, g.read(), name)
			g.take()
			require.Equal(t, "renewed", g.read(), name)
		}
	}
}

func TestOneEditToALaterTimeNowAndThenIsNotTakenForACopy(t *testing.T) {
	g := leader(t, cfg)
	for range 3 {
		r := g.own.wrote
		r.Renewed, r.Version = r.Renewed+1_000_001, g.version+1
		g.show(r)
		require.Contains(t, g.read(), `update "me"`)
		g.take()
		require.Contains(t, g.read(), "renewed")
		g.serve(g.clock+11*s, g.own.wrote)
		g.read()
	}
}

func TestWhatIsNotTheSecondRecordOfACopy(t *testing.T) {
	for name, then := range map[string]func(g *rig, copied Record){
		"the same record with another label, while it is put right": func(g *rig, copied Record) {
			copied.Version++
			g.show(copied)
		},
		"the same record, because it could not be put right": func(g *rig, _ Record) { g.answer(Failed, Record{}).tick(3 * s) },
		"its deletion": func(g *rig, _ Record) {
			g.answer(Failed, Record{}).step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 21}}).tick(3 * s)
		},
		"its own write, shortened by a policy": func(g *rig, _ Record) {
			for range 2 {
				g.take().tick(g.clock + 3*s)
				r := g.apply()
				r.Seconds = 5
				g.answer(Failed, Record{}).show(r).tick(g.clock + s)
			}
		},
		"one that cannot be answered yet, after a failure": func(g *rig, _ Record) {
			g.take().serve(4*s, g.own.wrote).tick(g.own.sent.Add(2*s).Sub(epoch)).answer(Failed, Record{})
			r := g.own.wrote
			r.Version, r.Renewed = g.version+1, r.Renewed+1_000_001
			g.show(r)
		},
	} {
		g := leader(t, cfg)
		r := rec(20, "me", g.own.wrote.Acquired, g.own.wrote.Renewed+1_000_001)
		g.at(2 * s).show(r)
		require.Equal(t, `update "me"`, g.read(), name)
		then(g, r)
		assert.NotContains(t, g.read(), "lose", name)
		assert.Equal(t, Leading, g.phase, name)
	}
}

// S8: resigning with notice.

func TestAProcessThatEndsItselfLetsTheLeaseGoInWholeSeconds(t *testing.T) {
	for delay, seconds := range map[time.Duration]int32{500 * time.Millisecond: 2, s: 2, 1500 * time.Millisecond: 2, 2500 * time.Millisecond: 3, 3 * s: 3} {
		g := leader(t, cfg)
		if delay > s { // drain first

			g.step(Event{Kind: StepDown})
			g.read()
		}
		g.at(2 * s).step(Event{Kind: Resign, Delay: delay})
		assert.Contains(t, g.read(), fmt.Sprintf("lose %d", SteppedDown), "no authority from here on")
		c := g.sent[g.lastReq].Claim
		assert.Equal(t, Claim{Seconds: seconds, Acquired: c.Renewed, Renewed: c.Renewed, Transitions: c.Transitions}, c)
		assert.Equal(t, "let go", g.take().read())

		other := newRig(t, cfg, rec(1, "me", 1, 2))
		other.show(Record{Version: 9, UID: "u", Claim: c})
		binds := time.Duration(seconds) * s
		assert.Empty(t, other.tick(binds-time.Millisecond).read(), "it binds for as long as it says")
		assert.Equal(t, `update "me"`, other.tick(binds+spread).read())
	}
}

func TestAProcessThatSaidItWouldEndAndDoesNotReleasesItsNextTermAsUsual(t *testing.T) {
	g := leader(t, cfg)
	g.step(Event{Kind: Resign, Delay: 5 * s}).take()
	require.Contains(t, g.read(), "let go")
	g.step(Event{Kind: Campaign}).tick(7 * s)
	require.Equal(t, `update "me"`, g.read())
	g.take().step(Event{Kind: Returned})
	assert.Equal(t, int32(1), g.sent[g.lastReq].Claim.Seconds)

	g = newRig(t, cfg, rec(5, "them", 100, 200))
	assert.Empty(t, g.step(Event{Kind: Resign, Delay: s}).read())
	assert.Equal(t, StandingBy, g.phase, "there is nothing to let go")
}

// S3: a record that comes back is no renewal.

func TestServersThatAnswerInTurnsWithOldStatesRenewNothing(t *testing.T) {
	g := newRig(t, cfg, rec(10, "them", 100, 200))
	g.step(Event{Kind: WatchEnded, ID: g.watchID})
	states := []Record{rec(12, "them", 100, 300), rec(10, "them", 100, 200), rec(11, "them", 100, 250)}
	for i := 0; g.clock < 40*s; i++ {
		if g.tick(g.Wake().Sub(epoch)); g.sent[g.lastReq].Verb == Get && g.calls.awaited() != nil {
			g.answer(OK, states[i%3])
		}
		if strings.Contains(g.read(), "update") {
			assert.Less(t, g.clock, 30*s, "it expires")
			return
		}
	}
	t.Fatal("it never expires")
}

// L9 and L12: requests that do not return, and those that have not left.

func TestARequestThatHasNotLeftIsNotOverdueAndCountsFromWhenItLeaves(t *testing.T) {
	traced := cfg
	traced.Traces = true
	g := newRig(t, traced, free).tick(s)
	require.Equal(t, `update "me"`, g.read())
	assert.NotContains(t, g.tick(6*s).read(), "update", "a second one would wait for the same")
	g.at(6 * s).step(Event{Kind: Left, ID: g.lastReq, At: at(6 * s)})
	g.take()
	assert.Equal(t, "begin", g.read())
	assert.Equal(t, at(6*s), g.own.sent)
}

func TestAnOverdueAttemptIsFollowedByAnotherOnTheSpareConnectionAndAnAnswerThereShowsTheFirstToBeDead(t *testing.T) {
	g := leader(t, cfg)
	g.tick(3 * s)
	first := g.lastReq
	g.read()
	assert.Equal(t, `update "me" spare`, g.tick(6400*time.Millisecond).read())
	assert.Equal(t, "suspect, renewed", g.take().read())
	assert.NotEqual(t, first, g.lastReq)
}

func TestACandidateThatNeverHearsItsRepliesLetsOthersGoFirst(t *testing.T) {
	g := newRig(t, cfg, free).tick(s)
	for range maxAdopted + 1 {
		g.show(g.apply())
		g.answer(Failed, Record{})
		g.tick(g.clock + 3*s)
	}
	assert.GreaterOrEqual(t, g.jitter, g.RetryPeriod)
}

func TestADriverThatHandsInWhatCannotHappenPanics(t *testing.T) {
	g := leader(t, cfg)
	assert.PanicsWithValue(t, "bug: elector: an answer to request 99, which is not under way while leading", func() {
		g.step(Event{Kind: Answered, ID: 99})
	})
	assert.Panics(t, func() { g.step(Event{Kind: Campaign}) })
}

func TestADeletedLeaseIsPutBackAndThatIsSaid(t *testing.T) {
	g := leader(t, cfg)
	g.at(2 * s).step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 20}})
	assert.Equal(t, `missing, puts back, create "me"`, g.read())
}

func TestWithLittleTimeLeftTheNextAttemptIsMadeSooner(t *testing.T) {
	g := leader(t, cfg)
	limit := func(d time.Duration) time.Duration { g.now = g.own.sent.Add(d); return g.attemptLimit() }
	assert.Equal(t, cfg.RenewDeadline/3, limit(0))
	assert.Equal(t, s, limit(8*s), "half of what is left")
	assert.Equal(t, 50*time.Millisecond, limit(10*s-time.Millisecond))
	g.phase = StandingBy
	assert.Equal(t, cfg.RenewDeadline/3, limit(8*s), "a standby has all the time")
}

func TestTheWatchIsInDoubtAfterThreeRenewalsThatDidNotCome(t *testing.T) {
	o := seen{}.see(rec(1, "them", 100, 100), Instant{}, at(0))
	assert.Equal(t, at(7500*time.Millisecond), o.quiet(), "half of the duration, while the interval is not known")
	o = o.see(rec(2, "them", 100, 3_000_200), Instant{}, at(2*s))
	assert.Equal(t, at(8*s), o.quiet())
	o = o.see(rec(3, "them", 100, 9_000_300), Instant{}, at(8*s))
	assert.Equal(t, at(15500*time.Millisecond), o.quiet(), "never more than half of the duration")
}
