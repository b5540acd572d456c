package elector_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// Terms that are suspended (S14), and outages of the API for everybody (L10, L11).

func recovering(d time.Duration) option {
	return with(func(o *elector.Options) { o.RecoveryDeadline = d })
}

// away is an outage of one kind. Each can begin and end for one client at a time.
type away struct {
	name  string
	begin func(c *electortest.Client)
}

var outages = []away{
	{"errors", func(c *electortest.Client) { failing(c); c.CloseWatches() }},
	{"refusals", func(c *electortest.Client) {
		c.Intercept(func(r electortest.Request) electortest.Fault {
			return electortest.Fault{Err: electortest.Forbidden(r.Verb)}
		})
		c.CloseWatches()
	}},
	{"silence", silence},
}

// back ends an outage. The connections of before are gone.
func back(c *electortest.Client) {
	well(c)
	answers(c)
	c.CloseWatches()
}

func (w *world) begin(o away, rs ...*replica) {
	for _, r := range rs {
		o.begin(r.client)
	}
}

func (w *world) heal(rs ...*replica) {
	for _, r := range rs {
		back(r.client)
	}
}

// oneValid lets time pass, and checks that no two terms are valid at any moment of it. It returns for how long one was.
func (w *world) oneValid(d time.Duration) (led time.Duration) {
	w.Helper()
	const step = 5 * time.Millisecond
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(step) {
		var valid []string
		for _, r := range w.replicas {
			if r.el != nil && r.el.IsLeader() {
				valid = append(valid, r.name)
			}
		}
		if len(valid) > 0 {
			led += step
		}
		require.LessOrEqual(w, len(valid), 1, "at %v the terms of %v are valid", w.now(), valid)
	}
	return led
}

// write tries to write through the gate of a replica, and returns what that has come to.
func (r *replica) write() error {
	req := request(r.w.Context(), http.MethodPut, configMaps)
	_, err := r.el.WrapTransport(&backend{answer: ok}).RoundTrip(req)
	return err
}

func logs(r *replica, what string) (n int) {
	for _, line := range r.log() {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}

// The others wait for its last renewal, not for its loss.
func TestATermThatIsLostEarlyOverrunsByItsLastRenewal(t *testing.T) {
	inWorld(t, func(w *world) {
		var overran time.Time
		w.join("a", draining(20*time.Second), with(func(o *elector.Options) {
			o.RecoveryDeadline = time.Hour
			o.OnOverrun = func(elector.Term) { overran = time.Now() }
		}))
		w.awaitLeader(time.Second)
		w.pass(30 * time.Second)
		renewed := w.lease().Spec.RenewTime.Time
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("else") })
		w.pass(20 * time.Second)
		require.False(w, overran.IsZero())
		assert.WithinDuration(w, renewed.Add(13750*time.Millisecond), overran, 100*time.Millisecond)
	})
}

func TestAnOutageForEverybodySuspendsTheTermAndEndsNothing(t *testing.T) {
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				l := &ledger{}
				a := w.join("a", recovering(10*time.Minute), told(l))
				w.awaitLeader(time.Second)
				b, c := w.join("b", recovering(10*time.Minute)), w.join("c", recovering(10*time.Minute))
				w.pass(20 * time.Second)
				term := w.last().term
				held, cancel := term.Context(w.Context())
				defer cancel()
				w.begin(o, a, b, c)
				sent := a.el.Status().LastRenewal
				<-held.Done()
				assert.Equal(w, 10*time.Second, time.Since(sent), "suspended at RenewDeadline")
				assert.Equal(w, elector.ErrSuspended, context.Cause(held))
				synctest.Wait()
				assert.False(w, a.el.IsLeader())
				assert.False(w, term.Valid())
				assert.Equal(w, time.Now(), term.Suspended())
				assert.Equal(w, term.Suspended(), a.el.Status().Suspended)
				assert.Equal(w, term, a.el.Status().Term)
				assert.True(w, a.el.Status().Draining.IsZero())
				assert.ErrorIs(w, a.write(), elector.ErrSuspended)
				awaited := make(chan error, 1)
				go func() { awaited <- term.Await(w.Context()) }()
				w.oneValid(50 * time.Second)
				if o.name != "refusals" { // those are somebody's to put right
					require.NoError(w, errors.Join(a.el.Check(nil), b.el.Check(nil), c.el.Check(nil)), "a restart would not help")
				}
				assert.Empty(w, awaited)
				w.heal(a, b, c)
				took := w.within(3*time.Second, "a valid term", term.Valid)
				w.Logf("valid %v after the return", took)
				synctest.Wait()
				require.NoError(w, <-awaited)
				assert.NoError(w, a.write())
				assert.True(w, a.el.Status().Suspended.IsZero())
				w.oneValid(time.Minute)
				w.oneTerm()
				assert.Equal(w, term.Token(), a.el.Status().Term.Token())
				assert.Equal(w, []int{1, 1, 0}, []int{logs(a, "Suspended: "), logs(a, "Resumed: "), logs(a, "Lost the lease")})
				assert.Equal(w, []string{
					"Normal LeaderElection: a became leader",
					"Warning LeaderElection: a is suspended: no renewal succeeded within RenewDeadline",
					"Normal LeaderElection: a leads again after a suspension",
				}, l.read().events)
				assert.Empty(w, l.read().lost)
			})
		})
	}
}

func TestASuspendedTermIsLostAtItsDeadlineAndItsCallbackHasItsStopBudgetThen(t *testing.T) {
	inWorld(t, func(w *world) {
		var overran time.Time
		a := w.join("a", draining(20*time.Second), recovering(20*time.Second), with(func(o *elector.Options) {
			o.OnOverrun = func(elector.Term) { overran = time.Now() }
		}))
		w.awaitLeader(time.Second)
		w.pass(3 * time.Second)
		term := w.last().term
		silence(a.client)
		sent := a.el.Status().LastRenewal
		w.pass(time.Until(sent.Add(29 * time.Second)))
		require.NoError(w, a.el.Check(nil))
		err := term.Await(w.Context())
		assert.Equal(w, 30*time.Second, time.Since(sent))
		assert.Equal(w, &elector.LostError{Reason: elector.ReasonDeadlinePassed, Holder: "a"}, err)
		assert.ErrorIs(w, a.write(), elector.ErrNotLeader)
		assert.True(w, term.Suspended().IsZero(), "it is over")
		answers(a.client) // too late
		w.pass(15 * time.Second)
		assert.False(w, term.Valid())
		s := w.last()
		assert.Equal(w, 30*time.Second, s.told.Sub(sent))
		assert.Equal(w, 3750*time.Millisecond, overran.Sub(s.told), "three quarters of the stop budget")
		assert.Error(w, a.el.Check(nil))
		w.pass(30 * time.Second)
		assert.NotEqual(w, term.Token(), w.last().term.Token())
		assert.True(w, w.last().term.Valid())
	})
}

func TestASuspendedCallbackIsStoppedAsAnyOther(t *testing.T) {
	for name, stop := range map[string]func(a *replica){
		"Run's ctx ends": func(a *replica) { a.stop() },
		"StepDown":       func(a *replica) { go func() { _ = a.el.StepDown(a.w.Context()) }() },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.join("a", recovering(time.Hour), draining(time.Second))
				w.awaitLeader(time.Second)
				w.pass(3 * time.Second)
				silence(a.client)
				w.pass(time.Minute)
				term := w.last().term
				require.False(w, term.Suspended().IsZero())
				begin := time.Now()
				stop(a)
				w.pass(2 * time.Second)
				assert.Equal(w, begin, w.last().told)
				assert.Equal(w, time.Second, w.last().end.Sub(begin))
				answers(a.client)
				w.pass(time.Minute)
				assert.False(w, term.Valid(), "a term that was to stop is not resumed")
				assert.Zero(w, logs(a, "Resumed"))
				if name == "Run's ctx ends" {
					require.NoError(w, a.awaitEnd(time.Second))
				}
			})
		})
	}
}

// While the API is away for an hour a suspended holder asks for little (L10).
func TestTheRequestsOfASuspendedHolder(t *testing.T) {
	for _, o := range outages {
		inWorld(t, func(w *world) {
			a := w.join("a", recovering(2*time.Hour))
			w.awaitLeader(time.Second)
			w.pass(10 * time.Second)
			o.begin(a.client)
			w.pass(time.Minute)
			w.api.ResetRequests()
			w.pass(time.Hour)
			n := float64(w.api.Requests("a", "")-w.api.Requests("a", "watch")) / 60
			w.Logf("%-8s %.1f requests a minute", o.name, n)
			assert.LessOrEqual(w, n, 80.0, "one for each three quarters of half a RetryPeriod")
			assert.GreaterOrEqual(w, n, 15.0)
			back(a.client)
			w.within(3*time.Second, "a valid term", a.el.IsLeader)
			w.oneTerm()
		})
	}
}

// While A was cut off, B has led. Then A gets its link back, B loses it, and somebody makes the Lease look like A's again, or
// like nobody's. A sees none of what B wrote. Only a record just as A wrote it counts for A, so no two terms are valid.
func TestWhatASuspendedHolderDoesNotTakeForItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		make func(w *world, was *coordinationv1.LeaseSpec)
		why  string
	}{
		"its name without times": {func(w *world, _ *coordinationv1.LeaseSpec) {
			w.kubectl(func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{HolderIdentity: ptr.To("a")} })
		}, "duplicate identity"},
		"its name and its acquireTime": {func(w *world, was *coordinationv1.LeaseSpec) {
			w.kubectl(func(l *coordinationv1.Lease) {
				l.Spec.HolderIdentity, l.Spec.AcquireTime = was.HolderIdentity, was.AcquireTime
			})
		}, "duplicate identity"},
		"its own record, its times cut to the second": {func(w *world, was *coordinationv1.LeaseSpec) {
			w.kubectl(func(l *coordinationv1.Lease) {
				l.Spec = *was.DeepCopy()
				l.Spec.AcquireTime.Time, l.Spec.RenewTime.Time = was.AcquireTime.Truncate(time.Second), was.RenewTime.Truncate(time.Second)
			})
		}, "duplicate identity"},
		"deleted": {func(w *world, _ *coordinationv1.LeaseSpec) { w.deleteLease() }, "lease deleted"},
		"deleted, and made anew": {func(w *world, _ *coordinationv1.LeaseSpec) {
			w.deleteLease()
			_, err := w.leases().Create(w.Context(), &coordinationv1.Lease{ObjectMeta: objectMeta(name)}, createOptions)
			require.NoError(w, err)
		}, "lease deleted"},
		"blanked out": {func(w *world, _ *coordinationv1.LeaseSpec) {
			w.kubectl(func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} })
		}, "lease deleted"},
		"as B left it": {func(*world, *coordinationv1.LeaseSpec) {}, "taken over by \"b\""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.lenient = true
				a := w.join("a", recovering(time.Hour))
				w.awaitLeader(time.Second)
				b := w.join("b", recovering(time.Hour))
				w.pass(10 * time.Second)
				term, was := w.last().term, w.lease().Spec.DeepCopy()
				silence(a.client)
				w.pass(40 * time.Second)
				require.True(w, b.el.IsLeader())
				require.False(w, term.Suspended().IsZero())
				silence(b.client)
				c.make(w, was)
				back(a.client)
				w.oneValid(5 * time.Second)
				assert.EqualError(w, term.Await(w.Context()), "elector: leadership lost: "+c.why+explained(c.why))
				w.oneValid(time.Minute)
			})
		})
	}
}

// explained is what a *LostError of a duplicate identity says on top of that.
func explained(why string) string {
	if why != "duplicate identity" {
		return ""
	}
	return `: another process also calls itself "a"; each needs an identity of its own`
}

// What does not touch the record is no reason to lose the term.
func TestASuspendedTermOutlivesWhatOthersChangeBesideTheRecord(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", recovering(time.Hour))
		w.awaitLeader(time.Second)
		w.pass(10 * time.Second)
		silence(a.client)
		w.pass(40 * time.Second)
		w.kubectl(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"team": "orders"} })
		back(a.client)
		w.within(5*time.Second, "a valid term", a.el.IsLeader)
		w.oneTerm()
		assert.Equal(w, "orders", w.lease().Labels["team"])
	})
}

// A watch that works while nothing else does shows what ends the term, and with the reason that it has.
func TestADeletionSeenWhileSuspendedIsNoDuplicateIdentity(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", recovering(time.Hour))
		w.awaitLeader(time.Second)
		w.pass(10 * time.Second)
		a.client.Intercept(electortest.On(electortest.Fault{Err: electortest.Unavailable()}, "update", "get", "create"))
		w.pass(30 * time.Second)
		require.False(w, a.el.Status().Suspended.IsZero())
		w.deleteLease()
		w.pass(time.Second)
		assert.Equal(w, "lease deleted", reason(w.last().cause))
		_, err := w.leases().Get(w.Context(), name, metav1.GetOptions{})
		assert.Error(w, err, "it is not put back")
	})
}

// A write whose answer was lost is seen on the watch, too late: it holds the Lease, but gives no authority. From then on the
// deadline counts.
func TestALateConfirmationDoesNotResumeATermButCounts(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", recovering(20*time.Second))
		w.awaitLeader(time.Second)
		w.pass(10 * time.Second)
		a.client.SetWatchLag(15 * time.Second)
		a.client.CloseWatches()
		w.pass(20 * time.Second)
		a.client.Intercept(electortest.On(electortest.Fault{LoseReply: true}, "update"))
		before := a.el.Status().LastRenewal
		w.pass(3 * time.Second)
		a.client.Intercept(electortest.On(electortest.Fault{Err: electortest.Unavailable()}, "update", "get"))
		term := w.last().term
		w.pass(9 * time.Second)
		require.False(w, term.Suspended().IsZero())
		require.Error(w, term.Await(w.Context()))
		last := a.el.Status().LastRenewal
		require.Greater(w, last.Sub(before), time.Second, "the lost write counts")
		assert.Equal(w, 30*time.Second, time.Since(last))
		assert.Zero(w, logs(a, "Resumed"))
	})
}

// A write that was under way when the term was suspended is cut off, and nothing is sent until it is resumed.
func TestNothingGoesThroughTheGateOfASuspendedTerm(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", recovering(time.Hour))
		w.awaitLeader(time.Second)
		w.pass(10 * time.Second)
		api := &backend{answer: hang}
		silence(a.client)
		sent := a.el.Status().LastRenewal
		_, err := a.el.WrapTransport(api).RoundTrip(request(w.Context(), http.MethodPut, configMaps))
		assert.ErrorIs(w, err, elector.ErrSuspended)
		assert.ErrorContains(w, err, "may have been carried out")
		assert.Equal(w, 10*time.Second, time.Since(sent))
		for range 100 {
			require.ErrorIs(w, a.write(), elector.ErrSuspended)
			time.Sleep(100 * time.Millisecond)
		}
		ctx, cancel := w.last().term.Context(w.Context())
		defer cancel()
		assert.Equal(w, elector.ErrSuspended, context.Cause(ctx), "it has ended when it is made")
		back(a.client)
		w.within(5*time.Second, "a valid term", a.el.IsLeader)
		assert.NoError(w, a.write())
		assert.ErrorIs(w, context.Cause(ctx), elector.ErrSuspended, "a ctx of the time before does not come back")
	})
}

// The callback of a candidate that is suspended as soon as it has won waits for its authority.
func TestACallbackIsNotBegunWhileItsTermIsSuspended(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", recovering(time.Hour), with(func(o *elector.Options) { o.RenewDeadline = 2 * time.Second; o.RetryPeriod = time.Second }))
		a.client.Intercept(electortest.On(electortest.Fault{After: 900 * time.Millisecond}))
		w.awaitLeader(5 * time.Second) // enter checks that the term is valid
		w.oneTerm()
	})
}

// API servers that come back one after the other: whoever has its own back first may lead, and no two do.
func TestServersThatReturnOneAfterTheOther(t *testing.T) {
	for _, o := range outages {
		for _, first := range []string{"leader", "standby"} {
			for _, later := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 20 * time.Second} {
				inWorld(t, func(w *world) {
					w.lenient = true
					a := w.join("a", recovering(time.Hour))
					w.awaitLeader(time.Second)
					b := w.join("b", recovering(time.Hour))
					w.pass(10 * time.Second)
					term := w.last().term
					w.begin(o, a, b)
					w.oneValid(time.Minute)
					if first == "standby" {
						a, b = b, a
					}
					back(a.client)
					led := w.oneValid(later)
					back(b.client)
					led += w.oneValid(20 * time.Second)
					switch {
					case first == "leader", later <= 2*time.Second:
						assert.True(w, term.Valid(), "%s: the holder has tried again (L10) within RenewDeadline/3 of the standby (L11)", o.name)
						assert.Len(w, w.spans(), 1)
					case later == 20*time.Second:
						assert.Equal(w, `elector: leadership lost: taken over by "b"`, term.Await(w.Context()).Error())
					}
					assert.Greater(w, led, 15*time.Second)
				})
			}
		}
	}
}

// The leader alone is cut off: another takes over when the Lease expires, and the suspended term is lost once it is seen.
func TestASuspendedHolderThatIsCutOffAloneGivesWay(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lenient = true // a's callback runs on, and may not write
		a := w.join("a", recovering(time.Hour))
		w.awaitLeader(time.Second)
		b := w.join("b", recovering(time.Hour))
		w.pass(10 * time.Second)
		silence(a.client)
		w.oneValid(5 * time.Minute)
		assert.True(w, b.el.IsLeader())
		assert.ErrorIs(w, a.write(), elector.ErrSuspended)
		assert.True(w, w.spans()[0].told.IsZero(), "a has seen nothing that ends its term")
		back(a.client)
		w.oneValid(3 * time.Second)
		assert.Equal(w, `taken over`, reason(w.spans()[0].cause))
		w.oneValid(time.Minute)
		assert.Len(w, w.spans(), 2)
	})
}

// One standby alone is cut off, for long, and comes back: nothing happens.
func TestAStandbyThatIsCutOffAloneChangesNothing(t *testing.T) {
	for _, o := range outages {
		inWorld(t, func(w *world) {
			w.join("a")
			w.awaitLeader(time.Second)
			b := w.join("b")
			w.pass(10 * time.Second)
			o.begin(b.client)
			w.oneValid(time.Minute)
			back(b.client)
			w.oneValid(time.Minute)
			w.oneTerm()
		})
	}
}

// Client-go's elector takes an expired Lease at once: the suspended term is lost, and is not valid beside it.
func TestAStandbyWithClientGoMayTakeASuspendedHoldersLease(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lenient = true
		a := w.join("a", recovering(time.Hour))
		w.awaitLeader(time.Second)
		c := w.joinClientGo("c")
		w.pass(10 * time.Second)
		term := w.last().term
		w.begin(outages[0], a, c)
		w.pass(time.Minute)
		back(c.client)
		w.within(25*time.Second, "client-go leads", func() bool { return len(w.spans()) == 2 })
		assert.False(w, term.Valid())
		back(a.client)
		for range 5000 {
			time.Sleep(time.Millisecond)
			require.False(w, term.Valid())
		}
		assert.Equal(w, "taken over", reason(w.spans()[0].cause))
	})
}

// A drain is not suspended: its callback was asked to stop, and the Lease is another's when it expires.
func TestADrainIsLostAndNotSuspended(t *testing.T) {
	for _, limit := range []time.Duration{0, 5 * time.Second} {
		inWorld(t, func(w *world) {
			overran := time.Time{}
			a := w.join("a", recovering(time.Hour), draining(time.Minute), with(func(o *elector.Options) {
				o.DrainLimit, o.OnOverrun = limit, func(elector.Term) { overran = time.Now() }
			}))
			w.awaitLeader(time.Second)
			w.pass(10 * time.Second)
			term := w.last().term
			go func() { _ = a.el.StepDown(w.Context()) }()
			w.pass(time.Second)
			if limit == 0 {
				silence(a.client)
			} else {
				w.pass(limit)
			}
			last := a.el.Status().LastRenewal
			w.pass(time.Until(last.Add(10*time.Second + time.Millisecond)))
			assert.False(w, term.Valid())
			assert.True(w, term.Suspended().IsZero())
			w.pass(10 * time.Second)
			assert.Equal(w, 13750*time.Millisecond, overran.Sub(last))
			assert.Zero(w, logs(a, "Suspended"))
			answers(a.client)
		})
	}
}

// A holder that yields to others does not yield its own term.
func TestAHolderThatYieldsIsResumedAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		yields := with(func(o *elector.Options) { o.Yield = func() time.Duration { return 20 * time.Second } })
		a := w.join("a", recovering(time.Hour), yields)
		w.awaitLeader(time.Minute)
		b := w.join("b", recovering(time.Hour))
		w.pass(10 * time.Second)
		w.begin(outages[0], a, b)
		w.oneValid(5 * time.Minute)
		w.heal(a, b)
		w.oneValid(3 * time.Second)
		w.oneTerm()
	})
}

// An outage may begin in the middle of any request, and its answer be lost, or the request itself.
func TestAnOutageThatBeginsInTheMiddleOfARequest(t *testing.T) {
	for _, o := range []away{outages[0], outages[2]} {
		for _, who := range []string{"leader", "standby", "newcomer"} {
			for _, verb := range []string{"get", "create", "update", "watch"} {
				for _, fault := range []electortest.Fault{{LoseRequest: true}, {LoseReply: true}, {After: 12 * time.Second}} {
					inWorld(t, func(w *world) { inTheMiddle(w, o, who, verb, fault) })
				}
			}
		}
	}
}

func inTheMiddle(w *world, o away, who, verb string, fault electortest.Fault) {
	w.lenient = true
	var mu sync.Mutex // guards all
	var all []*replica
	var begun atomic.Bool
	strike := func(r *replica) {
		r.client.Intercept(func(req electortest.Request) electortest.Fault {
			if req.Verb != verb || begun.Swap(true) {
				return electortest.Fault{}
			}
			time.AfterFunc(time.Millisecond, func() {
				mu.Lock()
				defer mu.Unlock()
				w.begin(o, all...)
			})
			return fault
		})
	}
	add := func(r *replica) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r)
	}
	add(w.join("a", recovering(time.Hour)))
	if who == "newcomer" {
		strike(all[0])
	} else {
		w.awaitLeader(time.Second)
	}
	add(w.join("b", recovering(time.Hour)))
	w.pass(10 * time.Second)
	switch {
	case who == "leader":
		strike(all[0])
	case who == "standby":
		strike(all[1])
	}
	if verb == "create" && who != "newcomer" {
		w.deleteLease() // the leader puts it back
	}
	w.oneValid(10 * time.Second)
	if !begun.Load() { // it sends no such request now
		w.begin(o, all...)
	}
	w.oneValid(30 * time.Second)
	w.heal(all...)
	w.oneValid(25 * time.Second)
	valid := 0
	for _, r := range all {
		if r.el.IsLeader() {
			valid++
		}
	}
	assert.Equal(w, 1, valid, "%s begins in the middle of %s of the %s: %+v", o.name, verb, who, fault)
}
