package leaderelection_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/transport"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/leaderelection"
)

// Client-go has Recovery from v0.38 on: make compat-leaderelection runs the tests of this file that need it.

func TestRecoveryIsReadAsFarAsItIsKnown(t *testing.T) {
	type recovery struct{ RecoveryDeadline *time.Duration }
	type config struct{ Recovery *recovery }
	minute, short := time.Minute, time.Second/2
	read := leaderelection.RecoveryOf
	for _, c := range []struct {
		what   string
		config any
		want   time.Duration
		err    string
	}{
		{"before v0.38", &struct{}{}, 0, ""},
		{"not set", &config{}, 0, ""},
		{"a deadline", &config{&recovery{&minute}}, time.Minute, ""},
		{"none", &config{&recovery{}}, leaderelection.NoLimit, ""},
		{"a deadline that client-go refuses", &config{&recovery{&short}}, 0, "RecoveryDeadline: 500ms: must be at least 1s"},
		{"a field more", &struct {
			Recovery *struct {
				RecoveryDeadline *time.Duration
				Retries          int
			}
		}{&struct {
			RecoveryDeadline *time.Duration
			Retries          int
		}{nil, 1}}, 0, "Recovery: a *struct"},
		{"a deadline of another type", &struct {
			Recovery *struct{ RecoveryDeadline time.Duration }
		}{&struct{ RecoveryDeadline time.Duration }{1}}, 0, "Recovery: a *struct"},
		{"another type", &struct{ Recovery bool }{true}, 0, "Recovery: a bool"},
	} {
		got, err := read(c.config)
		assert.Equal(t, c.want, got, c.what)
		if c.err == "" {
			assert.NoError(t, err, c.what)
		} else {
			assert.ErrorContains(t, err, c.err, c.what)
		}
	}
}

// recovers sets Recovery, with a deadline if it is not 0.
func recovers(t *testing.T, deadline time.Duration) func(p *program) {
	t.Helper()
	if !reflect.ValueOf(leaderelection.LeaderElectionConfig{}).FieldByName("Recovery").IsValid() {
		t.Skip("this client-go has no Recovery")
	}
	return func(p *program) {
		f := reflect.ValueOf(&p.config).Elem().FieldByName("Recovery")
		f.Set(reflect.New(f.Type().Elem()))
		if deadline > 0 {
			f.Elem().FieldByName("RecoveryDeadline").Set(reflect.ValueOf(&deadline))
		}
		stopped := p.config.Callbacks.OnStoppedLeading
		p.config.Callbacks.OnStoppedLeading = func() { p.stops.Add(1); stopped() }
	}
}

// writes reports whether a write passes client-go's gate.
func (p *program) writes() bool {
	req, err := http.NewRequest(http.MethodPut, "https://api", http.NoBody)
	require.NoError(p.f, err)
	passed := false
	base := roundTripper(func(*http.Request) (*http.Response, error) {
		passed = true
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	})
	resp, err := any(p.elector).(interface{ WriteGate() transport.WrapperFunc }).WriteGate()(base).RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	return passed
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// gated lets time pass, and requires at each millisecond that no write passes the gate of a replica whose term is not valid,
// nor those of two. When somebody else takes the Lease, client-go may be asleep for LockRetryPeriod.
func (f *fleet) gated(d time.Duration, until func() bool, replicas ...*program) (passed time.Duration) {
	f.Helper()
	lost := map[*program]time.Time{}
	for began := time.Now(); time.Since(began) < d; time.Sleep(time.Millisecond) {
		synctest.Wait()
		open := 0
		for _, p := range replicas {
			switch s := p.lock.Elector().Status(); {
			case !p.writes():
				delete(lost, p)
			case s.Leading:
				open++
			case lost[p].IsZero() && s.Reason == elector.ReasonTakenOver && s.Suspended.IsZero():
				lost[p] = time.Now()
			case lost[p].IsZero() || time.Since(lost[p]) > leaderelection.LockRetryPeriod:
				f.Fatalf("%s writes without a valid term: %+v", p.name, s)
			}
		}
		if open > 1 {
			f.Fatal("two write")
		}
		if until != nil && until() {
			return time.Since(began)
		}
	}
	if until != nil {
		f.Fatalf("not within %v", d)
	}
	return d
}

func (p *program) breaks() {
	p.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{Err: electortest.Unavailable()} })
}

func TestRecoveryLetsATermGoOnThroughAnOutage(t *testing.T) {
	for what, deadline := range map[string]time.Duration{"without a deadline": 0, "with one": 10 * time.Minute} {
		t.Run(what, func(t *testing.T) {
			recovering := recovers(t, deadline)
			inFleet(t, func(f *fleet) {
				gauge.reset()
				a := f.start("a", recovering)
				f.await(time.Second, nil)
				f.gated(time.Second, nil, a)
				require.Equal(f, 1, gauge.value())
				b := f.start("b", recovering)
				f.gated(20*time.Second, nil, a, b)
				token := a.lock.Elector().Status().Term.Token()
				require.True(f, a.writes())
				gauge.On("") // b has set it to 0, as it began
				a.breaks()
				b.breaks()
				f.gated(11*time.Second, func() bool { return !a.writes() }, a, b)
				require.False(f, a.elector.IsLeader())
				require.Empty(f, a.elector.GetLeader())
				f.gated(time.Minute, nil, a, b)
				require.Zero(f, gauge.value())
				require.EqualValues(f, 1, a.stops.Load())
				require.NoError(f, a.elector.Check(time.Second))
				a.client.Intercept(nil)
				b.client.Intercept(nil)
				took := f.gated(10*time.Second, a.writes, a, b)
				t.Logf("from the API's return to the first write: %v", took)
				require.Less(f, took, 3*time.Second)
				f.gated(time.Minute, nil, a, b)
				require.True(f, a.elector.IsLeader())
				require.Equal(f, 1, gauge.value())
				require.Equal(f, token, a.lock.Elector().Status().Term.Token())
				require.Equal(f, []int32{1, 0}, []int32{a.terms.Load(), b.terms.Load()})
				require.EqualValues(f, 1, a.stops.Load())
				a.stop()
				<-a.done
				require.EqualValues(f, 2, a.stops.Load())
				require.Equal(f, b, f.await(50*time.Millisecond, a))
			})
		})
	}
}

// Wherever client-go is in its sleep of LockRetryPeriod, it has closed the gate when the authority ends.
func TestTheGateIsClosedInTime(t *testing.T) {
	recovering := recovers(t, 0)
	for renewals := range 40 {
		inFleet(t, func(f *fleet) {
			a := f.start("a", recovering)
			f.await(time.Second, nil)
			f.pass(time.Duration(renewals) * 2 * time.Second)
			a.breaks()
			f.pass(time.Until(a.lock.Elector().Status().Term.ValidUntil()) - 50*time.Millisecond)
			require.True(f, a.writes())
			f.gated(100*time.Millisecond, nil, a)
			require.False(f, a.writes())
		})
	}
}

// A term of client-go's Run that is lost ends it, and the next Run of the same LeaderElector can lead.
func TestWithRecoveryALossEndsRun(t *testing.T) {
	for what, c := range map[string]struct {
		deadline time.Duration
		lose     func(f *fleet, a, b *program)
	}{
		"another takes the Lease": {0, func(f *fleet, a, b *program) { f.steal("thief") }},
		"another takes the Lease while the term is suspended": {0, func(f *fleet, a, b *program) {
			f.lenient = true
			a.client.Partition(electortest.Both)
			f.gated(20*time.Second, func() bool { return b.elector.IsLeader() }, a, b)
			require.Equal(f, a.terms.Load(), int32(1))
			require.True(f, a.at(&a.ended).IsZero(), "its work goes on")
			a.client.Partition(electortest.NoPartition)
		}},
		"the deadline passes": {5 * time.Second, func(f *fleet, a, b *program) {
			a.breaks()
			b.breaks()
			f.gated(16*time.Second, func() bool { return !a.at(&a.ended).IsZero() }, a, b)
			a.client.Intercept(nil)
			b.client.Intercept(nil)
		}},
	} {
		for released, change := range map[string]bool{"released": true, "not released": false} {
			t.Run(what+"/"+released, func(t *testing.T) {
				recovering := recovers(t, c.deadline)
				inFleet(t, func(f *fleet) {
					a := f.start("a", recovering, func(p *program) { p.config.ReleaseOnCancel = change })
					f.await(time.Second, nil)
					b := f.start("b", recovering)
					f.gated(10*time.Second, nil, a, b)
					c.lose(f, a, b)
					f.gated(3*time.Second, func() bool { return !a.isRunning() }, a, b)
					require.False(f, a.elector.IsLeader())
					require.False(f, a.writes())
					require.EqualValues(f, 1, a.stops.Load())
					a.run()
					f.gated(20*time.Second, func() bool { return f.leader() != nil }, a, b)
					f.gated(20*time.Second, nil, a, b)
					if b == f.leader() {
						b.stop()
						<-b.done
						require.Equal(f, a, f.await(5*time.Second, b))
					}
					require.EqualValues(f, 2, a.terms.Load())
					f.gated(time.Minute, a.writes, a, b)
				})
			})
		}
	}
}

func TestRunEndsWithItsContextWhileATermIsSuspended(t *testing.T) {
	for released, change := range map[string]bool{"released": true, "not released": false} {
		t.Run(released, func(t *testing.T) {
			recovering := recovers(t, 0)
			inFleet(t, func(f *fleet) {
				log := logged(t)
				a := f.start("a", recovering, func(p *program) { p.config.ReleaseOnCancel = change })
				f.await(time.Second, nil)
				f.gated(10*time.Second, nil, a)
				a.breaks()
				f.gated(time.Minute, nil, a)
				a.stop()
				f.gated(3*time.Second, func() bool { return !a.isRunning() && f.leader() == nil }, a)
				a.client.Intercept(nil)
				b := f.start("b", recovering)
				f.gated(20*time.Second, func() bool { return f.leader() == b && b.writes() }, a, b)
				a.run()
				f.gated(time.Second, nil, a, b)
				b.stop()
				f.gated(20*time.Second, func() bool { return f.leader() == a && a.writes() }, a, b)
				for line := range strings.Lines(log()) {
					require.False(f, strings.HasPrefix(line, "E") && strings.Contains(line, " leaderelection.go:"), line)
				}
			})
		})
	}
}

func TestWithRecoveryACleanStopHandsOverAfterTheDrain(t *testing.T) {
	for released, limit := range map[bool]time.Duration{true: 50 * time.Millisecond, false: 16 * time.Second} {
		recovering := recovers(t, 0)
		inFleet(t, func(f *fleet) {
			a := f.start("a", recovering, drains(2*time.Second), func(p *program) { p.config.ReleaseOnCancel = released })
			f.await(time.Second, nil)
			b := f.start("b", recovering)
			f.gated(5*time.Second, nil, a, b)
			a.stop()
			<-a.done
			if released {
				require.False(f, a.at(&a.stopped).Before(a.at(&a.ended)), "OnStoppedLeading is called when the work has ended")
			}
			require.Equal(f, b, f.await(20*time.Second, a))
			require.Less(f, b.at(&b.began).Sub(a.at(&a.ended)), limit)
			require.EqualValues(f, 1, a.stops.Load())
		})
	}
}

// The options win: with them client-go is not shown a suspension, as on versions that have no Recovery.
func TestTheOptionAloneIsNotShown(t *testing.T) {
	inFleet(t, func(f *fleet) {
		gauge.reset()
		a := f.start("a", func(p *program) {
			p.options = func(o *elector.Options) { o.RecoveryDeadline = 10 * time.Minute }
		})
		f.await(time.Second, nil)
		f.pass(10 * time.Second)
		a.breaks()
		f.pass(time.Minute)
		require.False(f, a.lock.Elector().IsLeader())
		require.True(f, a.elector.IsLeader(), "documented: client-go knows of no suspension")
		require.Equal(f, 1, gauge.value())
		a.client.Intercept(nil)
		f.pass(10 * time.Second)
		require.True(f, a.lock.Elector().IsLeader())
		require.EqualValues(f, 1, a.terms.Load())
	})
}

// Nobody waits for a term that client-go has left, with the options or with Recovery.
func TestATermThatIsLeftIsNotRecovered(t *testing.T) {
	for what, change := range map[string]func(t *testing.T) func(p *program){
		"option": func(*testing.T) func(p *program) {
			return func(p *program) { p.options = func(o *elector.Options) { o.RecoveryDeadline = 24 * time.Hour } }
		},
		"Recovery": func(t *testing.T) func(p *program) { return recovers(t, 0) },
	} {
		t.Run(what, func(t *testing.T) {
			recovering := change(t)
			inFleet(t, func(f *fleet) { // which fails if a goroutine is left
				a := f.start("a", recovering, func(p *program) { p.config.ReleaseOnCancel = false })
				f.await(time.Second, nil)
				b := f.start("b", recovering)
				f.pass(5 * time.Second)
				a.stop()
				require.Equal(f, b, f.await(16*time.Second, a))
			})
		})
	}
}
