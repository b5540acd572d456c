package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/metrics"
)

var lease = types.NamespacedName{Namespace: "shop", Name: "order-controller"}

// A shop is replicas, each with a registry as in a process of its own, and an API server in a bubble of virtual time.
type shop struct {
	*testing.T
	api      *electortest.Server
	replicas []*replica
}

type replica struct {
	shop    *shop
	el      *elector.Elector
	client  *electortest.Client
	numbers *metrics.Collector
	reg     *prometheus.Registry
	sick    atomic.Bool // what Options.Healthy says
	stop    context.CancelFunc
	done    chan struct{}
}

func inShop(t *testing.T, f func(s *shop)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &shop{T: t, api: electortest.NewServer()}
		defer func() {
			s.api.Close()
			for _, r := range s.replicas {
				r.stop()
				<-r.done
			}
		}()
		f(s)
	})
}

func (s *shop) join(who string, change ...func(*elector.Options)) *replica {
	s.Helper()
	r := &replica{shop: s, client: s.api.Client(who), numbers: metrics.New(), reg: prometheus.NewRegistry(), done: make(chan struct{})}
	r.client.SetLatency(4 * time.Millisecond)
	r.reg.MustRegister(r.numbers)
	opts := elector.Options{
		Namespace: lease.Namespace, Name: lease.Name, Identity: who, Metrics: r.numbers,
		Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
		Healthy: func(context.Context) error {
			if r.sick.Load() {
				return errors.New("sick")
			}
			return nil
		},
	}
	for _, c := range change {
		c(&opts)
	}
	var err error
	r.el, err = elector.New(r.client.CoordinationV1(), opts)
	require.NoError(s, err)
	ctx, cancel := context.WithCancel(logr.NewContext(s.Context(), logr.Discard()))
	r.stop = cancel
	go func() {
		defer close(r.done)
		_ = r.el.Run(ctx)
	}()
	s.replicas = append(s.replicas, r)
	synctest.Wait() // Run has begun
	return r
}

// twoReplicas starts two, and returns which leads.
func (s *shop) twoReplicas(change ...func(*elector.Options)) (leader, standby *replica) {
	s.Helper()
	leader, standby = s.join("a", change...), s.join("b", change...)
	time.Sleep(20 * time.Second)
	if standby.el.IsLeader() {
		leader, standby = standby, leader
	}
	require.True(s, leader.el.IsLeader())
	return leader, standby
}

// scrape returns the one metric of the family that has the labels, given as "label=value", besides those of the Lease.
func (r *replica) scrape(family string, labels ...string) *dto.Metric {
	r.shop.Helper()
	labels = append(labels, "namespace="+lease.Namespace, "name="+lease.Name)
	families, err := r.reg.Gather()
	require.NoError(r.shop, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == family && len(m.GetLabel()) == len(labels) && !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
				return !slices.Contains(labels, l.GetName()+"="+l.GetValue())
			}) {
				return m
			}
		}
	}
	require.Fail(r.shop, "no such series", "%s %v", family, labels)
	return nil
}

func (r *replica) gauge() float64 {
	r.shop.Helper()
	return r.scrape("leader_election_master_status").GetGauge().GetValue()
}

func (r *replica) counter(family string, labels ...string) float64 {
	r.shop.Helper()
	return r.scrape(family, labels...).GetCounter().GetValue()
}

func (r *replica) histogram(family string) *dto.Histogram {
	r.shop.Helper()
	return r.scrape(family).GetHistogram()
}

// atMost is how many of the observations were at most the bound of a bucket.
func atMost(t require.TestingT, h *dto.Histogram, bound float64) uint64 {
	for _, b := range h.GetBucket() {
		if b.GetUpperBound() == bound {
			return b.GetCumulativeCount()
		}
	}
	require.Fail(t, "no such bucket", "%v", bound)
	return 0
}

func TestOneOfSeveralReplicasShowsThatItLeads(t *testing.T) {
	inShop(t, func(s *shop) {
		for i := range 5 {
			r := s.join(fmt.Sprint("replica-", i))
			require.Zero(s, r.gauge(), "before there was time to win, there is a series, with 0")
		}
		for range 20 {
			time.Sleep(time.Second)
			leaders, terms := 0.0, 0.0
			for _, r := range s.replicas {
				require.Equal(s, r.el.IsLeader(), r.gauge() == 1)
				leaders += r.gauge()
				terms += r.counter("elector_terms_total")
			}
			require.Equal(s, 1.0, leaders)
			require.Equal(s, 1.0, terms)
		}
	})
}

// Nothing reports the end to the Collector: the scrape is all that happens.
func TestACutOffLeaderShowsZeroFromItsDeadlineOn(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, _ := s.twoReplicas()
		leader.client.Partition(electortest.Both)
		end := leader.el.Status().Term.ValidUntil()
		time.Sleep(time.Until(end) - 1)
		require.Equal(s, 1.0, leader.gauge(), "a nanosecond before")
		time.Sleep(time.Nanosecond)
		require.Zero(s, leader.gauge(), "at the deadline")
	})
}

func TestTheEndOfATermIsSeenThoughTheElectionIsStuck(t *testing.T) {
	inShop(t, func(s *shop) {
		var stuck atomic.Bool
		leader, standby := s.twoReplicas()
		for _, r := range []*replica{leader, standby} {
			r.client.Intercept(func(electortest.Request) electortest.Fault {
				stuck.Store(true)
				return electortest.Fault{LoseRequest: true}
			})
		}
		time.Sleep(10 * time.Second)
		require.True(s, stuck.Load())
		require.Zero(s, leader.gauge()+standby.gauge())
	})
}

func TestALostTermIsCountedByItsReason(t *testing.T) {
	takeOver := func(holder string) func(s *shop, leader *replica) {
		return func(s *shop, _ *replica) {
			kubectl := s.api.Client("kubectl").CoordinationV1().Leases(lease.Namespace)
			l, err := kubectl.Get(s.Context(), lease.Name, metav1.GetOptions{})
			require.NoError(s, err)
			now := metav1.NowMicro()
			l.Spec.HolderIdentity, l.Spec.AcquireTime, l.Spec.RenewTime = &holder, &now, &now
			_, err = kubectl.Update(s.Context(), l, metav1.UpdateOptions{})
			require.NoError(s, err)
		}
	}
	for reason, cause := range map[string]func(s *shop, leader *replica){
		"taken_over":         takeOver("mallory"),
		"duplicate_identity": takeOver("a"),
		"deadline_passed":    func(_ *shop, leader *replica) { leader.client.Partition(electortest.Both) },
		"stepped_down":       func(s *shop, leader *replica) { require.NoError(s, leader.el.StepDown(s.Context())) },
		"unhealthy":          func(_ *shop, leader *replica) { leader.sick.Store(true) },
		"requested": func(s *shop, _ *replica) {
			kubectl := s.api.Client("kubectl").CoordinationV1().Leases(lease.Namespace)
			l, err := kubectl.Get(s.Context(), lease.Name, metav1.GetOptions{})
			require.NoError(s, err)
			metav1.SetMetaDataAnnotation(&l.ObjectMeta, "elector-go.github.io/step-down", "")
			_, err = kubectl.Update(s.Context(), l, metav1.UpdateOptions{})
			require.NoError(s, err)
		},
		"deleted": func(s *shop, leader *replica) {
			leader.client.Intercept(func(r electortest.Request) (f electortest.Fault) {
				if r.Verb == "create" {
					f.Err = electortest.InternalError()
				}
				return f
			})
			kubectl := s.api.Client("kubectl").CoordinationV1().Leases(lease.Namespace)
			require.NoError(s, kubectl.Delete(s.Context(), lease.Name, metav1.DeleteOptions{}))
		},
	} {
		t.Run(reason, func(t *testing.T) {
			inShop(t, func(s *shop) {
				leader := s.join("a")
				time.Sleep(20 * time.Second)
				for _, other := range []string{"taken_over", "deleted", "deadline_passed", "stepped_down", "duplicate_identity", "unhealthy", "requested"} {
					require.Zero(s, leader.counter("elector_lost_terms_total", "reason="+other), "it is there before the first one")
				}
				cause(s, leader)
				time.Sleep(11 * time.Second)
				require.Equal(s, 1.0, leader.counter("elector_lost_terms_total", "reason="+reason))
			})
		})
	}
}

func TestARenewalIsObservedWithItsLatencyAndWhatWasLeft(t *testing.T) {
	for _, setting := range []struct{ lease, deadline, retry time.Duration }{{15, 10, 2}, {137, 107, 26}, {3, 2, 1}} {
		t.Run(fmt.Sprintf("%d/%d/%d s", setting.lease, setting.deadline, setting.retry), func(t *testing.T) {
			inShop(t, func(s *shop) {
				r := s.join("a", func(o *elector.Options) {
					o.LeaseDuration, o.RenewDeadline, o.RetryPeriod = setting.lease*time.Second, setting.deadline*time.Second, setting.retry*time.Second
				})
				time.Sleep(setting.deadline * time.Second * 10)

				latency := r.histogram("elector_renewal_latency_seconds")
				interval := min(setting.retry.Seconds(), setting.deadline.Seconds()/3)
				deadlines := setting.deadline.Seconds() / interval
				require.InDelta(s, 10*deadlines, latency.GetSampleCount(), 2, "a renewal each RetryPeriod, and at least three in a RenewDeadline")
				require.Equal(s, latency.GetSampleCount(), atMost(s, latency, .005), "4 ms each")
				require.Zero(s, atMost(s, latency, .002))

				left := r.histogram("elector_renewal_left_ratio")
				require.Equal(s, latency.GetSampleCount(), left.GetSampleCount())
				require.InDelta(s, 1-1/deadlines, left.GetSampleSum()/float64(left.GetSampleCount()), .005)
				require.Zero(s, atMost(s, left, .65))
			})
		})
	}
}

func TestADrainShowsSinceWhen(t *testing.T) {
	inShop(t, func(s *shop) {
		r := s.join("a", func(o *elector.Options) {
			o.Run = func(ctx context.Context) error { <-ctx.Done(); time.Sleep(5 * time.Minute); return nil }
		})
		time.Sleep(20 * time.Second)
		require.Zero(s, r.scrape("elector_draining_seconds").GetGauge().GetValue(), "while the work is not asked to stop")
		r.stop()
		time.Sleep(2 * time.Minute)
		require.InDelta(s, 120, r.scrape("elector_draining_seconds").GetGauge().GetValue(), 1)
		time.Sleep(4 * time.Minute)
		require.Zero(s, r.scrape("elector_draining_seconds").GetGauge().GetValue(), "when it has returned")
	})
}

func TestASuspensionShowsForHowLong(t *testing.T) {
	inShop(t, func(s *shop) {
		r := s.join("a", func(o *elector.Options) { o.RecoveryDeadline = time.Hour })
		time.Sleep(20 * time.Second)
		require.Zero(s, r.scrape("elector_suspended_seconds").GetGauge().GetValue())
		r.client.Partition(electortest.Both)
		time.Sleep(2 * time.Minute)
		require.InDelta(s, 110, r.scrape("elector_suspended_seconds").GetGauge().GetValue(), 2)
		require.Zero(s, r.scrape("leader_election_master_status").GetGauge().GetValue())
		r.client.Partition(electortest.NoPartition)
		time.Sleep(20 * time.Second)
		require.Zero(s, r.scrape("elector_suspended_seconds").GetGauge().GetValue(), "when it has its authority again")
		require.EqualValues(s, 1, r.scrape("leader_election_master_status").GetGauge().GetValue())
	})
}

func TestAnAttemptWithoutAnAnswerLeavesAThirdOfRenewDeadline(t *testing.T) {
	inShop(t, func(s *shop) {
		r := s.join("a")
		time.Sleep(21 * time.Second)
		lose := true
		r.client.Intercept(func(q electortest.Request) electortest.Fault {
			defer func() { lose = lose && q.Verb != "update" }()
			return electortest.Fault{LoseReply: lose && q.Verb == "update"}
		})
		time.Sleep(30 * time.Second)
		left := r.histogram("elector_renewal_left_ratio")
		require.EqualValues(s, 1, atMost(s, left, .5))
		require.Zero(s, atMost(s, left, .3))
	})
}

func TestARenewalNearTheDeadlineIsSeen(t *testing.T) {
	inShop(t, func(s *shop) {
		r := s.join("a")
		time.Sleep(20 * time.Second)
		r.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{Err: electortest.Unavailable()} })
		time.Sleep(time.Until(r.el.Status().Term.ValidUntil()) - 2*time.Second)
		require.Zero(s, atMost(s, r.histogram("elector_renewal_left_ratio"), .25))
		r.client.Intercept(nil)
		time.Sleep(5 * time.Second)
		require.True(s, r.el.IsLeader())
		require.EqualValues(s, 1, atMost(s, r.histogram("elector_renewal_left_ratio"), .25))
		require.Zero(s, r.counter("elector_lost_terms_total", "reason=deadline_passed"))
	})
}

// The callback drains for longer than the deadline; meanwhile the API is back, and the lease is renewed once more.
func TestARenewalAfterTheDeadlineHadNothingLeft(t *testing.T) {
	inShop(t, func(s *shop) {
		r := s.join("a", func(o *elector.Options) {
			o.Run = func(ctx context.Context) error { <-ctx.Done(); time.Sleep(3 * time.Second); return nil }
		})
		time.Sleep(20 * time.Second)
		r.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{Err: electortest.Unavailable()} })
		time.Sleep(time.Until(r.el.Status().Term.ValidUntil()))
		r.client.Intercept(nil)
		time.Sleep(3 * time.Second)
		require.NotZero(s, atMost(s, r.histogram("elector_renewal_left_ratio"), .05))
	})
}

func TestAHandOverIsObserved(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoReplicas()
		require.Zero(s, leader.histogram("elector_handover_seconds").GetSampleCount(), "a new Lease is no hand-over")
		leader.stop()
		time.Sleep(time.Second)
		clean := standby.histogram("elector_handover_seconds")
		require.EqualValues(s, 1, clean.GetSampleCount())
		require.EqualValues(s, 1, atMost(s, clean, .05))

		third := s.join("c")
		time.Sleep(5 * time.Second)
		standby.client.Partition(electortest.Both)
		time.Sleep(20 * time.Second)
		crash := third.histogram("elector_handover_seconds")
		require.EqualValues(s, 1, crash.GetSampleCount())
		require.InDelta(s, 15, crash.GetSampleSum(), .1)
	})
}

func TestAnOverrunIsCounted(t *testing.T) {
	inShop(t, func(s *shop) {
		r := s.join("a", func(o *elector.Options) {
			o.Run = func(ctx context.Context) error { <-ctx.Done(); time.Sleep(20 * time.Second); return nil }
			o.OnOverrun = func(elector.Term) {}
		})
		time.Sleep(20 * time.Second)
		require.Zero(s, r.counter("elector_overruns_total"), "it is there before the first one")
		r.client.Partition(electortest.Both)
		time.Sleep(14 * time.Second)
		require.Equal(s, 1.0, r.counter("elector_overruns_total"))
	})
}

func TestRequestsAreCountedByVerbAndOutcome(t *testing.T) {
	inShop(t, func(s *shop) {
		r := s.join("a")
		require.Zero(s, r.counter("elector_requests_total", "verb=update", "outcome=forbidden"), "it is there before the first one")
		time.Sleep(20 * time.Second)
		require.NotZero(s, r.counter("elector_requests_total", "verb=get", "outcome=not_found"))
		require.Equal(s, 1.0, r.counter("elector_requests_total", "verb=create", "outcome=success"))
		require.Equal(s, 1.0, r.counter("elector_requests_total", "verb=watch", "outcome=success"))
		require.InDelta(s, 9, r.counter("elector_requests_total", "verb=update", "outcome=success"), 1)

		r.client.Intercept(func(q electortest.Request) electortest.Fault {
			return electortest.Fault{Err: electortest.Forbidden(q.Verb)}
		})
		time.Sleep(5 * time.Second)
		require.NotZero(s, r.counter("elector_requests_total", "verb=update", "outcome=forbidden"))
		r.client.Intercept(nil)
		r.client.Partition(electortest.Both)
		time.Sleep(30 * time.Second)
		require.NotZero(s, r.counter("elector_requests_total", "verb=update", "outcome=timeout"))
		families, err := r.reg.Gather()
		require.NoError(s, err)
		require.NotContains(s, fmt.Sprint(families), `"other"`, "a request without an answer is a timeout, whoever gave up on it")
	})
}

func TestEachErrorHasAnOutcomeOfAFixedSet(t *testing.T) {
	refused := &url.Error{Op: "Put", URL: "https://10.0.0.1:443/x", Err: &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}}
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, "success"},
		{electortest.Conflict(), "conflict"},
		{electortest.AlreadyExists(), "already_exists"},
		{electortest.NotFound(), "not_found"},
		{electortest.Unauthorized(), "unauthorized"},
		{electortest.Forbidden("update"), "forbidden"},
		{electortest.TooManyRequests(time.Second), "too_many_requests"},
		{electortest.InternalError(), "server_error"},
		{electortest.Unavailable(), "server_error"},
		{electortest.Timeout(), "server_error"},
		{context.DeadlineExceeded, "timeout"},
		{&url.Error{Op: "Put", URL: "https://10.0.0.1:443/x", Err: context.DeadlineExceeded}, "timeout"},
		{&net.DNSError{Err: "i/o timeout", IsTimeout: true}, "timeout"},
		{refused, "unreachable"},
		{fmt.Errorf("wrapped: %w", refused), "unreachable"},
		{fmt.Errorf("wrapped: %w", electortest.Forbidden("get")), "forbidden"},
		{errors.New("anything"), "other"},
	} {
		reg, numbers := prometheus.NewRegistry(), metrics.New()
		reg.MustRegister(numbers)
		numbers.Request(lease, "update", test.err)
		want := fmt.Sprintf("# HELP elector_requests_total Requests for the lease to the Kubernetes API, by verb and outcome.\n"+
			"# TYPE elector_requests_total counter\nelector_requests_total{name=%q,namespace=%q,outcome=%q,verb=\"update\"} 1\n", lease.Name, lease.Namespace, test.want)
		require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(want)), "%v", test.err)
	}
}

func TestTheNamesAndHelpsPassPrometheussLinter(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoReplicas()
		leader.stop()
		time.Sleep(time.Second)
		for _, r := range []*replica{leader, standby} {
			problems, err := testutil.GatherAndLint(r.reg)
			require.NoError(s, err)
			require.Empty(s, problems)
		}
	})
}

// controller-runtime registers client-go's gauge, which has no label namespace, when it is imported.
func TestItFitsIntoARegistryWithClientGosGauge(t *testing.T) {
	clientGo := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "leader_election_master_status",
		Help: "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.",
	}, []string{"name"})
	clientGo.WithLabelValues(lease.Name).Set(1)
	numbers := metrics.New()
	numbers.Term(lease, elector.Term{})

	reg := prometheus.NewRegistry()
	require.NoError(t, reg.Register(clientGo))
	require.NoError(t, reg.Register(numbers))
	n, err := testutil.GatherAndCount(reg, "leader_election_master_status")
	require.NoError(t, err)
	require.Equal(t, 2, n)
}

func TestOneCollectorServesTheElectorsOfAProcess(t *testing.T) {
	inShop(t, func(s *shop) {
		orders := s.join("a")
		s.join("b", func(o *elector.Options) { o.Name, o.Metrics = "invoices", orders.numbers })
		time.Sleep(20 * time.Second)
		n, err := testutil.GatherAndCount(orders.reg, "leader_election_master_status")
		require.NoError(s, err)
		require.Equal(s, 2, n)
		require.Equal(s, 1.0, orders.counter("elector_terms_total"))
	})
}

// For the race detector: in real time, scrapes during an election whose terms keep changing.
func TestScrapesRaceTheElection(t *testing.T) {
	api := electortest.NewServer()
	defer api.Close()
	reg, numbers := prometheus.NewRegistry(), metrics.New()
	reg.MustRegister(numbers)
	ctx, stop := context.WithCancel(logr.NewContext(t.Context(), logr.Discard()))
	done := make(chan struct{}, 2)
	for _, who := range []string{"a", "b"} {
		el, err := elector.New(api.Client(who).CoordinationV1(), elector.Options{
			Namespace: lease.Namespace, Name: lease.Name, Identity: who, Metrics: numbers,
			LeaseDuration: time.Second, RenewDeadline: 300 * time.Millisecond, RetryPeriod: 10 * time.Millisecond,
			Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
		})
		require.NoError(t, err)
		go func() { _ = el.Run(ctx); done <- struct{}{} }()
		go func() {
			for ctx.Err() == nil {
				_ = el.StepDown(ctx)
				time.Sleep(time.Millisecond)
			}
		}()
	}
	for scrapes, terms := 0, 0.0; terms < 20; scrapes++ {
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "elector_terms_total" {
				terms = f.GetMetric()[0].GetCounter().GetValue()
			}
		}
	}
	stop()
	<-done
	<-done
}
