package elector_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// L3: slow answers, stalls and outages.

// slow makes every answer to r late by d: of requests alone, or of watch events too.
func slow(r *replica, d time.Duration, events bool) {
	if events {
		r.client.SetLatency(d)
		return
	}
	r.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{After: d - roundTrip} })
}

func TestAnAPIThatTakesUpToHalfOfRenewDeadlineForEveryAnswerIsLedOn(t *testing.T) {
	for _, d := range []time.Duration{1, 3500, 4000, 4900} {
		for _, events := range []bool{false, true} {
			t.Run(fmt.Sprint(d*time.Millisecond, " ", events), func(t *testing.T) {
				inWorld(t, func(w *world) {
					for _, who := range []string{"a", "b", "c"} {
						slow(w.join(who), d*time.Millisecond, events)
					}
					w.awaitLeader(3*d*time.Millisecond + 100*time.Millisecond)
					time.Sleep(10 * time.Minute)
					w.oneTerm()
				})
			})
		}
	}
}

func TestAnAPIThatBecomesSlowCostsNoTerm(t *testing.T) {
	for _, d := range []time.Duration{3500, 4000, 4900} {
		inWorld(t, func(w *world) {
			replicas := []*replica{w.join("a"), w.join("b"), w.join("c")}
			w.awaitLeader(time.Second)
			time.Sleep(time.Minute + d*7/3*time.Millisecond)
			for _, r := range replicas {
				slow(r, d*time.Millisecond, true)
			}
			time.Sleep(10 * time.Minute)
			for _, r := range replicas {
				slow(r, roundTrip, true)
			}
			time.Sleep(time.Minute)
			w.oneTerm()
		})
	}
}

func TestATermThatCannotBeRenewedInTimeIsNotBegun(t *testing.T) {
	for _, d := range []time.Duration{6000, 8000} {
		inWorld(t, func(w *world) {
			replicas := []*replica{w.join("a"), w.join("b"), w.join("c")}
			for _, r := range replicas {
				slow(r, d*time.Millisecond, true)
			}
			time.Sleep(10 * time.Minute)
			assert.Empty(w, w.spans(), "at %v an answer leadership would last for moments", d*time.Millisecond)
			for _, r := range replicas {
				slow(r, roundTrip, true)
			}
			w.awaitLeader(35 * time.Second)
		})
	}
}

// costsNoTerm has the API fail for a leader for d, beginning at 40 moments between two renewals.
func costsNoTerm(t *testing.T, d time.Duration, fail, heal func(c *electortest.Client)) {
	for i := range 40 {
		inWorld(t, func(w *world) {
			a := w.join("a")
			w.awaitLeader(time.Second)
			w.join("b")
			time.Sleep(time.Minute + time.Duration(i)*50*time.Millisecond)
			fail(a.client)
			time.Sleep(d)
			heal(a.client)
			time.Sleep(time.Minute)
			w.oneTerm()
		})
	}
}

func TestOneStallOfSevenAndAHalfSecondsCostsNoTerm(t *testing.T) {
	costsNoTerm(t, 7500*time.Millisecond, silence, answers)
}

func TestAStallThatEndsTheWatchTooCostsNoTerm(t *testing.T) {
	fail := func(c *electortest.Client) {
		c.CloseWatches() // the next one is opened during the stall, and is under way until it ends
		time.Sleep(roundTrip)
		c.Partition(electortest.Both)
		c.Intercept(electortest.On(electortest.Fault{LoseRequest: true}))
	}
	costsNoTerm(t, 7500*time.Millisecond, fail, func(c *electortest.Client) { answers(c); well(c) })
}

func TestErrorsForAlmostEightSecondsCostNoTerm(t *testing.T) {
	fail := func(c *electortest.Client) {
		c.Intercept(func(electortest.Request) electortest.Fault {
			return electortest.Fault{Err: electortest.InternalError()}
		})
	}
	costsNoTerm(t, 7900*time.Millisecond, fail, well)
}

func TestAStallIsAnsweredWithFewRequests(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		w.api.ResetRequests()
		a.client.Intercept(electortest.On(electortest.Fault{LoseRequest: true}, "get", "update"))
		time.Sleep(9 * time.Second)
		sent := w.api.Requests("a", "get") + w.api.Requests("a", "update")
		assert.Greater(w, sent, 2)
		assert.Less(w, sent, 12, "requests in nine seconds of silence")
	})
}

func TestALateReplyOfAnAttemptThatAnotherOneOvertookChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		var late atomic.Bool
		a.client.Intercept(onWrites(func(n int, _ electortest.Request) electortest.Fault {
			if n == 1 {
				late.Store(true)
				return electortest.Fault{After: 6 * time.Second}
			}
			return electortest.Fault{}
		}))
		time.Sleep(time.Minute)
		require.True(w, late.Load())
		w.oneTerm()
		until := w.last().term.ValidUntil()
		assert.Greater(w, time.Until(until), 7*time.Second, "renewed by the attempts after it")
	})
}

func TestALateErrorOfAnAttemptThatAnotherOneOvertookIsNoTrouble(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		var late atomic.Bool
		a.client.Intercept(onWrites(func(n int, _ electortest.Request) electortest.Fault {
			if n > 1 {
				return electortest.Fault{}
			}
			late.Store(true)
			return electortest.Fault{Err: electortest.InternalError(), After: 6 * time.Second}
		}))
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			require.NoError(w, a.el.Status().LastError)
		}
		require.True(w, late.Load())
		w.oneTerm()
	})
}

func TestAStandbyMakesTwoAttemptsAndWaitsForThem(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a", func(r *replica, _ *elector.Options) { // before its first request
			r.client.ForbidWatch(true)
			r.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{LoseRequest: true} })
		})
		w.pass(9900 * time.Millisecond) // each is given RenewDeadline
		assert.Equal(w, 2, w.api.Requests("a", "get"))
	})
}

func TestAQuietLeaderSendsOneRenewalEveryRetryPeriod(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		before := w.api.Requests("a", "")
		time.Sleep(10 * time.Minute)
		assert.InDelta(w, 300, w.api.Requests("a", "")-before, 5)
	})
}
