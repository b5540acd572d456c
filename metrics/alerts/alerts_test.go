package alerts_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/metrics"
)

const (
	namespace = "shop"
	name      = "order-controller"
)

// A world is pods with electors, an API server, and a Prometheus that scrapes them, in virtual time.
type world struct {
	*testing.T
	api      *electortest.Server
	begin    time.Time
	interval time.Duration // between the scrapes of a pod
	made     int
	pods     []*pod
	scrapers sync.WaitGroup
	mu       sync.Mutex // guards scraped
	scraped  []sample
}

type pod struct {
	el       *elector.Elector
	client   *electortest.Client
	kill     func() // the process ends, the lease stays
	stop     func() // SIGTERM; returns when the pod is gone
	finished sync.WaitGroup
}

// inWorld plays a scenario and returns the alerts that fired in it.
func inWorld(t *testing.T, interval time.Duration, scenario func(w *world)) (fired []firing, begin time.Time) {
	t.Helper()
	scraped, begin, end := play(t, interval, scenario)
	return evaluate(t, scraped, begin, end), begin
}

// play plays a scenario in virtual time and returns what was scraped in it.
func play(t *testing.T, interval time.Duration, scenario func(w *world)) (scraped []sample, begin, end time.Time) {
	t.Helper()
	w := &world{interval: interval}
	synctest.Test(t, func(t *testing.T) {
		w.T, w.api, w.begin = t, electortest.NewServer(), time.Now()
		scenario(w)
		end = time.Now()
		w.api.Close()
		for _, p := range w.pods {
			p.kill()
			p.finished.Wait()
		}
		w.scrapers.Wait()
	})
	return slices.DeleteFunc(w.scraped, func(s sample) bool { return s.at.After(end) }), w.begin, end
}

// start starts a pod against an API server. Its scrapes begin at a moment of its own.
func (w *world) start(api *electortest.Server, change ...func(*elector.Options)) *pod {
	w.Helper()
	w.made++
	p, id := &pod{}, fmt.Sprint("pod-", w.made)
	p.client = api.Client(id)
	p.client.SetLatency(4 * time.Millisecond)
	numbers, reg := metrics.New(), prometheus.NewRegistry()
	reg.MustRegister(numbers)
	opts := elector.Options{Namespace: namespace, Name: name, Identity: id, Metrics: numbers, OnOverrun: func(elector.Term) {}}
	opts.Run = func(ctx context.Context) error { <-ctx.Done(); return nil }
	for _, c := range change {
		c(&opts)
	}
	var err error
	p.el, err = elector.New(p.client.CoordinationV1(), opts)
	require.NoError(w, err)
	ctx, cancel := context.WithCancel(logr.NewContext(w.Context(), logr.Discard()))
	gone := make(chan struct{})
	end := sync.OnceFunc(func() { close(gone) })
	p.finished.Go(func() { _ = p.el.Run(ctx) })
	offset := time.Duration(w.made) * 7 * time.Second % w.interval
	w.scrapers.Go(func() { w.scrape(reg, id, offset, gone) })
	p.kill = func() { p.client.Partition(electortest.Both); end(); cancel() }
	p.stop = func() { cancel(); p.finished.Wait(); end() }
	w.pods = append(w.pods, p)
	return p
}

// scrape scrapes a pod until it is gone, and notes at the next scrape that it is.
func (w *world) scrape(reg *prometheus.Registry, pod string, offset time.Duration, gone <-chan struct{}) {
	var last []sample
	for tick := time.After(offset); ; tick = time.After(w.interval) {
		<-tick
		select {
		case <-gone:
			w.store(stale(last, time.Now()))
			return
		default:
		}
		families, err := reg.Gather()
		if err != nil {
			panic(err)
		}
		last = samples(families, pod, time.Now())
		w.store(last)
	}
}

func (w *world) store(s []sample) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scraped = append(w.scraped, s...)
}

// deploy starts pods and waits until it is long since.
func (w *world) deploy(n int, change ...func(*elector.Options)) []*pod {
	w.Helper()
	var pods []*pod
	for range n {
		pods = append(pods, w.start(w.api, change...))
	}
	time.Sleep(10 * time.Minute)
	return pods
}

// leader is the pod that leads.
func (w *world) leader() *pod {
	w.Helper()
	i := slices.IndexFunc(w.pods, func(p *pod) bool { return p.el.IsLeader() })
	require.GreaterOrEqual(w, i, 0, "nobody leads")
	return w.pods[i]
}

// outage has all requests of the pods fail for a while.
func (w *world) outage(fault electortest.Fault, d time.Duration) {
	for _, p := range w.pods {
		p.client.Intercept(func(electortest.Request) electortest.Fault { return fault })
	}
	time.Sleep(d)
	for _, p := range w.pods {
		p.client.Intercept(nil)
	}
}

// roll replaces pods one by one, and each time the leader, which is the worst case: first a new pod comes, then the old
// pod goes.
func (w *world) roll(pods int, pause time.Duration, change ...func(*elector.Options)) {
	for range pods {
		w.start(w.api, change...)
		time.Sleep(pause)
		w.leader().stop()
		time.Sleep(100 * time.Millisecond)
	}
}

// takeOver writes another holder into the Lease.
func (w *world) takeOver() {
	w.Helper()
	leases := w.api.Client("mallory").CoordinationV1().Leases(namespace)
	l, err := leases.Get(w.Context(), name, metav1.GetOptions{})
	require.NoError(w, err)
	holder, now := "mallory", metav1.NowMicro()
	l.Spec.HolderIdentity, l.Spec.AcquireTime = &holder, &now
	_, err = leases.Update(w.Context(), l, metav1.UpdateOptions{})
	require.NoError(w, err)
}

var intervals = []time.Duration{15 * time.Second, 30 * time.Second}

func TestNoAlertFires(t *testing.T) {
	for what, scenario := range map[string]func(w *world){
		"in quiet times": func(w *world) { w.deploy(3); time.Sleep(time.Hour) },
		"in rolling updates, slow and fast": func(w *world) {
			w.deploy(3)
			for _, pause := range []time.Duration{time.Minute, 20 * time.Second, 10 * time.Second, 3 * time.Second, time.Second} {
				w.roll(40, pause)
				time.Sleep(5 * time.Minute)
			}
		},
		"when the leader steps down every minute": func(w *world) {
			w.deploy(3)
			for range 60 {
				require.NoError(w, w.leader().el.StepDown(w.Context()))
				time.Sleep(time.Minute)
			}
		},
		"when leaders crash": func(w *world) {
			w.deploy(5)
			for range 3 {
				w.leader().kill()
				time.Sleep(3 * time.Minute)
			}
		},
		"in short outages of the API": func(w *world) {
			w.deploy(3)
			for range 20 {
				w.outage(electortest.Fault{Err: electortest.Unavailable()}, 3*time.Second)
				time.Sleep(time.Minute)
			}
		},
		"when a request is lost now and then": func(w *world) {
			for i, p := range w.deploy(3) {
				n := i
				p.client.Intercept(func(electortest.Request) electortest.Fault { n++; return electortest.Fault{LoseReply: n%40 == 0} })
			}
			time.Sleep(time.Hour)
		},
		"when the leader drains for minutes": func(w *world) {
			w.deploy(2, func(o *elector.Options) {
				o.Run = func(ctx context.Context) error { <-ctx.Done(); time.Sleep(5 * time.Minute); return nil }
			})
			w.leader().stop()
			time.Sleep(5 * time.Minute)
		},
	} {
		t.Run(what, func(t *testing.T) {
			for _, interval := range intervals {
				fired, begin := inWorld(t, interval, scenario)
				for _, f := range fired {
					require.Fail(t, "an alert fires", "%s after %v, scraped every %v: %v", f.alert, f.at.Sub(begin), interval, f.annotations)
				}
			}
		})
	}
}

// trouble is what the alerts are for, beginning 10 minutes after the start: those that fire, each within the time given.
var trouble = []struct {
	what     string
	scenario func(w *world)
	want     []string
	within   time.Duration
}{
	{"the API is down", func(w *world) {
		w.deploy(3)
		w.outage(electortest.Fault{LoseRequest: true}, 15*time.Minute)
	}, []string{"ElectorNobodyLeads"}, 3 * time.Minute},
	{"the lease is held by something that is not scraped", func(w *world) {
		w.deploy(3)
		for range 30 {
			w.takeOver()
			time.Sleep(10 * time.Second)
		}
	}, []string{"ElectorNobodyLeads"}, 4 * time.Minute},
	{"update is forbidden", func(w *world) {
		w.deploy(3)
		w.outage(electortest.Fault{Err: electortest.Forbidden("update")}, 15*time.Minute)
	}, []string{"ElectorNobodyLeads", "ElectorRequestsRefused"}, 7 * time.Minute},
	{"only watch is forbidden", func(w *world) {
		for _, p := range w.deploy(3) {
			p.client.ForbidWatch(true)
			p.client.CloseWatches()
		}
		time.Sleep(15 * time.Minute)
	}, []string{"ElectorRequestsRefused"}, 8 * time.Minute},
	{"all pods are gone", func(w *world) {
		for _, p := range w.deploy(3) {
			p.stop()
		}
		time.Sleep(15 * time.Minute)
	}, []string{"ElectorGone"}, 6 * time.Minute},
	{"replicas use two clusters", func(w *world) {
		w.deploy(3)
		other := electortest.NewServer()
		defer other.Close()
		w.start(other)
		time.Sleep(5 * time.Minute)
	}, []string{"ElectorTwoLead"}, 3 * time.Minute},
	{"the API is down for 8 s again and again", func(w *world) {
		w.deploy(3)
		leader := w.leader()
		term := leader.el.Status().Term
		for range 5 {
			for renewed := leader.el.Status().LastRenewal; leader.el.Status().LastRenewal.Equal(renewed); {
				time.Sleep(time.Millisecond)
			}
			w.outage(electortest.Fault{Err: electortest.Unavailable()}, 8*time.Second)
			time.Sleep(time.Minute)
		}
		require.True(w, term.Valid(), "no term was lost: the alert comes before it is")
	}, []string{"ElectorRenewalsNearDeadline"}, 6 * time.Minute},
	{"somebody takes the lease again and again", func(w *world) {
		w.deploy(3)
		for range 5 {
			w.takeOver()
			time.Sleep(time.Minute)
		}
	}, []string{"ElectorTermsLost"}, 6 * time.Minute},
	{"the leader is stopped, and its work does not end", func(w *world) {
		w.deploy(3, func(o *elector.Options) {
			o.Run = func(ctx context.Context) error { <-ctx.Done(); time.Sleep(20 * time.Minute); return nil }
		})
		l := w.leader()
		go func() { _ = l.el.StepDown(w.Context()) }()
		time.Sleep(18 * time.Minute)
	}, []string{"ElectorDrains"}, 12 * time.Minute},
	{"the API is away for long, and the term waits for it", func(w *world) {
		w.deploy(3, func(o *elector.Options) { o.RecoveryDeadline = time.Hour })
		term := w.leader().el.Status().Term
		w.outage(electortest.Fault{Err: electortest.Unavailable()}, 110*time.Second)
		time.Sleep(5 * time.Minute)
		require.True(w, term.Valid(), "it costs no term")
	}, []string{"ElectorSuspended"}, 2 * time.Minute},
	{"the work does not stop", func(w *world) {
		w.deploy(3, func(o *elector.Options) {
			o.Run = func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Minute); return nil }
		})
		w.leader().client.Partition(electortest.Both)
		time.Sleep(3 * time.Minute)
	}, []string{"ElectorOverrun"}, time.Minute},
}

func TestAlertsFire(t *testing.T) {
	for _, test := range trouble {
		t.Run(test.what, func(t *testing.T) {
			for _, interval := range intervals {
				fired, begin := inWorld(t, interval, test.scenario)
				require.Equal(t, test.want, names(fired), "scraped every %v", interval)
				for _, alert := range test.want {
					f := first(t, fired, alert)
					require.LessOrEqual(t, f.at.Sub(begin), 10*time.Minute+test.within, "%s, scraped every %v", alert, interval)
					requireInWords(t, f)
				}
			}
		})
	}
}

// requireInWords checks that the texts of an alert name the Lease, and that nothing in them is left empty.
func requireInWords(t *testing.T, f firing) {
	t.Helper()
	require.Equal(t, namespace, f.labels["namespace"])
	require.Equal(t, name, f.labels["name"])
	require.Contains(t, f.annotations["summary"], namespace+"/"+name)
	for _, text := range f.annotations {
		require.NotContains(t, text, "<") // of <no value> and <error expanding template>
		require.NotContains(t, text, "  ")
	}
}

func TestEachAlertHasATest(t *testing.T) {
	var tested []string
	for _, test := range trouble {
		tested = append(tested, test.want...)
	}
	slices.Sort(tested)
	groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, parser.NewParser(parser.Options{}), promslog.NewNopLogger())
	require.Empty(t, errs)
	var all []string
	for _, r := range groups.Groups[0].Rules {
		all = append(all, r.Alert)
	}
	slices.Sort(all)
	require.Equal(t, all, slices.Compact(tested))
}
