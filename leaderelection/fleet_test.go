package leaderelection_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/leaderelection"
)

const (
	namespace = "shop"
	name      = "order-controller"
	roundTrip = 4 * time.Millisecond
)

// A fleet is replicas of a client-go program and an API server in one bubble of virtual time. It fails the test as soon
// as two of them work at once.
type fleet struct {
	*testing.T
	api      *electortest.Server
	mu       sync.Mutex
	working  []*program
	replicas []*program
	lenient  bool // overlaps are what is tested
	overlaps int
}

// A program is one replica: client-go's unmodified LeaderElector, and work.
type program struct {
	f       *fleet
	name    string
	client  *electortest.Client
	config  leaderelection.LeaderElectionConfig
	options func(o *elector.Options) // what Upgrade changes
	elector *leaderelection.LeaderElector
	lock    *leaderelection.Lock
	stop    context.CancelFunc
	done    chan struct{} // closed once Run has returned
	drain   time.Duration // how long the work takes to stop
	work    func(ctx context.Context)

	mu      sync.Mutex
	began   time.Time    // the work, last
	told    time.Time    // that its ctx ended, last
	ended   time.Time    // the work, last
	stopped time.Time    // when OnStoppedLeading was called
	terms   atomic.Int32 // begun
	stops   atomic.Int32 // calls of OnStoppedLeading, counted by recovers
	leaders []string     // what OnNewLeader was called with
}

func inFleet(t *testing.T, test func(f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{T: t, api: electortest.NewServer()}
		defer func() {
			for _, p := range f.replicas {
				p.client.Intercept(nil)
				p.client.Partition(electortest.NoPartition)
				p.stop()
			}
			for _, p := range f.replicas {
				<-p.done
			}
			time.Sleep(time.Minute) // what is left to expire
			f.api.Close()
		}()
		test(f)
	})
}

// start starts a replica on Upgrade, changed by the functions given.
func (f *fleet) start(who string, change ...func(p *program)) *program {
	f.Helper()
	p := f.prepare(who, change...)
	config, err := leaderelection.Upgrade(p.config, p.options)
	require.NoError(f, err)
	p.config, p.lock = config, config.Lock.(*leaderelection.Lock)
	return p.launch()
}

// startOnLock starts a replica on NewLock.
func (f *fleet) startOnLock(who string, change ...func(p *program)) *program {
	f.Helper()
	p := f.prepare(who, change...)
	l, err := leaderelection.NewLock(p.client.CoordinationV1(), elector.Options{Namespace: namespace, Name: name, Identity: who})
	require.NoError(f, err)
	p.lock, p.config.Lock = l, l
	p.config.RenewDeadline, p.config.RetryPeriod = leaderelection.LockRenewDeadline, leaderelection.LockRetryPeriod
	return p.launch()
}

// startClientGo starts a replica on client-go's own lock.
func (f *fleet) startClientGo(who string, change ...func(p *program)) *program {
	f.Helper()
	return f.prepare(who, change...).launch()
}

func (f *fleet) prepare(who string, change ...func(p *program)) *program {
	p := &program{f: f, name: who, client: f.api.Client(who), done: make(chan struct{})}
	p.client.SetLatency(roundTrip)
	p.work = func(ctx context.Context) { <-ctx.Done() }
	p.options = func(*elector.Options) {}
	p.config = leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Client: p.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: who},
		},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		ReleaseOnCancel: true, Name: name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: p.lead,
			OnStoppedLeading: func() { p.mu.Lock(); defer p.mu.Unlock(); p.stopped = time.Now() },
			OnNewLeader:      func(id string) { p.mu.Lock(); defer p.mu.Unlock(); p.leaders = append(p.leaders, id) },
		},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func (p *program) launch() *program {
	var err error
	p.elector, err = clientgo.NewLeaderElector(p.config)
	require.NoError(p.f, err)
	p.f.replicas = append(p.f.replicas, p)
	p.run()
	return p
}

// run runs the elector, once more if it has ended.
func (p *program) run() {
	ctx, stop := context.WithCancel(p.f.Context())
	done := make(chan struct{})
	p.stop, p.done = stop, done
	go func() { defer close(done); p.elector.Run(ctx) }()
}

// lead is OnStartedLeading.
func (p *program) lead(ctx context.Context) {
	p.enter()
	defer p.leave()
	p.work(ctx)
	p.mu.Lock()
	p.told = time.Now()
	p.mu.Unlock()
	time.Sleep(p.drain)
}

func (p *program) enter() {
	p.f.mu.Lock()
	if len(p.f.working) > 0 {
		p.f.overlaps++
		if !p.f.lenient {
			p.f.Errorf("%s begins to work while %s works", p.name, p.f.working[0].name)
		}
	}
	p.f.working = append(p.f.working, p)
	p.f.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = time.Now()
	p.terms.Add(1)
}

func (p *program) leave() {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	for i, x := range p.f.working {
		if x == p {
			p.f.working = append(p.f.working[:i:i], p.f.working[i+1:]...)
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = time.Now()
}

// pass lets time pass, and everybody come to rest after it.
func (f *fleet) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// leader is the replica that works, nil if none does.
func (f *fleet) leader() *program {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.working) == 0 {
		return nil
	}
	return f.working[len(f.working)-1]
}

// await waits until a replica works that is not old.
func (f *fleet) await(limit time.Duration, old *program) *program {
	f.Helper()
	for end := time.Now().Add(limit); !time.Now().After(end); time.Sleep(time.Millisecond) {
		if l := f.leader(); l != nil && l != old {
			return l
		}
	}
	f.Fatalf("nobody leads after %v", limit)
	return nil
}

func (p *program) at(t *time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *t
}

func (f *fleet) lease() *coordinationv1.Lease {
	f.Helper()
	lease, err := f.api.Client("kubectl").CoordinationV1().Leases(namespace).Get(f.Context(), name, metav1.GetOptions{})
	require.NoError(f, err)
	return lease
}

// steal writes another holder into the Lease, as somebody with kubectl could.
func (f *fleet) steal(holder string) {
	f.Helper()
	lease := f.lease()
	now := metav1.NowMicro()
	lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.AcquireTime = &holder, &now, &now
	_, err := f.api.Client("kubectl").CoordinationV1().Leases(namespace).Update(f.Context(), lease, metav1.UpdateOptions{})
	require.NoError(f, err)
}

// makeLease makes a Lease that somebody holds.
func (f *fleet) makeLease(holder string, seconds int32) {
	f.Helper()
	now := metav1.NowMicro()
	_, err := f.api.Client("kubectl").CoordinationV1().Leases(namespace).Create(f.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now, AcquireTime: &now},
	}, metav1.CreateOptions{})
	require.NoError(f, err)
}

// logged collects what is logged from here on, until the test ends.
func logged(t *testing.T) (log func() string) {
	var mu sync.Mutex
	var lines strings.Builder
	var last string // klog writes an error once for each lower severity, too
	klog.LogToStderr(false)
	klog.SetOutput(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if line := string(p); line != last {
			last = line
			lines.WriteString(line)
		}
		return len(p), nil
	}))
	t.Cleanup(func() { klog.LogToStderr(true) })
	return func() string {
		klog.Flush()
		mu.Lock()
		defer mu.Unlock()
		return lines.String()
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
