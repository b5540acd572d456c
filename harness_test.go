package elector_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

const (
	namespace = "shop"
	name      = "order-controller"
	roundTrip = 4 * time.Millisecond
)

// A world is replicas and an API server in one bubble of virtual time. It fails the test as soon as two callbacks run
// at once.
type world struct {
	*testing.T
	api      *electortest.Server
	start    time.Time
	lenient  bool       // client-go's elector takes part: it may overlap
	restored time.Time  // when the server last went back to a snapshot: tokens may repeat those from before
	finish   chan error // what callbacks of some tests have to return
	mu       sync.Mutex
	running  []*replica
	terms    []*span
	replicas []*replica
}

// A span is one call of a callback.
type span struct {
	who        string
	term       elector.Term
	begin, end time.Time
	told       time.Time // when its ctx ended
	cause      error     // of its ctx
}

// inWorld runs f in a bubble of its own, and ends what f has started.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, api: electortest.NewServer(), start: time.Now()}
		defer func() {
			w.api.Close()
			for _, r := range w.everybody() {
				r.client.Intercept(nil)
				r.client.Partition(electortest.NoPartition)
				r.stop()
			}
			for _, r := range w.everybody() {
				<-r.done
			}
			time.Sleep(10 * time.Millisecond) // for what the test itself has under way
		}()
		f(w)
	})
}

// A replica is one candidate, its client and its callback.
type replica struct {
	w       *world
	name    string
	el      *elector.Elector
	client  *electortest.Client
	stop    context.CancelFunc
	done    chan struct{} // closed once Run has returned
	err     error         // what it returned
	drain   time.Duration // how long the callback takes to return once its ctx has ended
	work    func(ctx context.Context) error
	gate    func() // blocks while the replica is suspended; nil if it never is
	decides func() // see gated
	logged  []string
}

type option func(r *replica, o *elector.Options)

func draining(d time.Duration) option {
	return func(r *replica, _ *elector.Options) { r.drain = d }
}

func working(f func(ctx context.Context) error) option {
	return func(r *replica, _ *elector.Options) { r.work = f }
}

func with(f func(o *elector.Options)) option {
	return func(_ *replica, o *elector.Options) { f(o) }
}

// join starts a replica.
func (w *world) join(who string, opts ...option) *replica {
	client := w.api.Client(who)
	client.SetLatency(roundTrip)
	return w.joinOver(client.CoordinationV1(), client, who, opts...)
}

func (w *world) joinOver(leases coordinationv1client.LeasesGetter, client *electortest.Client, who string, opts ...option) *replica {
	w.Helper()
	r := &replica{w: w, name: who, client: client, done: make(chan struct{})}
	r.work = func(ctx context.Context) error { <-ctx.Done(); return nil }
	o := elector.Options{Namespace: namespace, Name: name, Identity: who, Run: r.run, StateDir: "-"} // the tests may run in a pod
	for _, opt := range opts {
		opt(r, &o)
	}
	var err error
	r.el, err = elector.New(leases, o)
	require.NoError(w, err)
	ctx, cancel := context.WithCancel(logr.NewContext(w.Context(), r.logger()))
	r.stop = cancel
	if r.gate != nil {
		ctx = gated{ctx, r.gate, r.decides}
	}
	w.add(r)
	go func() {
		defer close(r.done)
		r.err = r.el.Run(ctx)
	}()
	return r
}

// joinClientGo starts a replica on client-go's elector, set up as most operators do.
func (w *world) joinClientGo(who string, opts ...option) *replica {
	client := w.api.Client(who)
	client.SetLatency(roundTrip)
	r := &replica{w: w, name: who, client: client, done: make(chan struct{})}
	r.work = func(ctx context.Context) error { <-ctx.Done(); return nil }
	for _, opt := range opts {
		opt(r, &elector.Options{})
	}
	le, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: objectMeta(name), Client: client.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: who},
		},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(ctx context.Context) { _ = r.run(ctx) }, OnStoppedLeading: func() {}},
	})
	require.NoError(w, err)
	ctx, cancel := context.WithCancel(logr.NewContext(w.Context(), r.logger()))
	r.stop = cancel
	w.add(r)
	go func() {
		defer close(r.done)
		le.Run(ctx)
	}()
	return r
}

func (w *world) add(r *replica) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replicas = append(w.replicas, r)
}

// everybody is all who have joined so far.
func (w *world) everybody() []*replica {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.replicas)
}

func (r *replica) logger() logr.Logger {
	return funcr.New(func(_, args string) {
		if r.gate != nil {
			r.gate()
		}
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		r.logged = append(r.logged, args)
	}, funcr.Options{})
}

func (r *replica) log() []string {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return slices.Clone(r.logged)
}

func (r *replica) run(ctx context.Context) error {
	s := r.w.enter(r, ctx)
	defer r.w.leave(r, s)
	err := r.work(ctx)
	if ctx.Err() != nil {
		r.w.mu.Lock()
		s.told, s.cause = time.Now(), context.Cause(ctx)
		r.w.mu.Unlock()
		time.Sleep(r.drain)
	}
	return err
}

func (w *world) enter(r *replica, ctx context.Context) *span {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.running) > 0 && !w.lenient {
		w.Errorf("at %v the callback of %s begins while that of %s runs", w.now(), r.name, w.running[0].name)
	}
	term, ok := elector.TermFrom(ctx)
	if r.el != nil && (!ok || !term.Valid() || !r.el.IsLeader()) {
		w.Errorf("at %v %s begins without a valid term", w.now(), r.name)
	}
	if n := len(w.terms); n > 0 && term.Token() <= w.terms[n-1].term.Token() && term.Token() != 0 && !w.terms[n-1].begin.Before(w.restored) {
		w.Errorf("at %v %s has the token %d after %d", w.now(), r.name, term.Token(), w.terms[n-1].term.Token())
	}
	w.running = append(w.running, r)
	s := &span{who: r.name, term: term, begin: time.Now()}
	w.terms = append(w.terms, s)
	return s
}

func (w *world) leave(r *replica, s *span) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.end = time.Now()
	w.running = slices.DeleteFunc(w.running, func(x *replica) bool { return x == r })
}

// pass lets time pass, and everybody come to rest after it: what they have written may then be read.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) now() time.Duration { return time.Since(w.start) }

// leader is the replica whose callback runs, nil if none.
func (w *world) leader() *replica {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.running) == 0 {
		return nil
	}
	return w.running[0]
}

// spans are the calls of callbacks so far.
func (w *world) spans() []span {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []span
	for _, s := range w.terms {
		all = append(all, *s)
	}
	return all
}

// last is the last call of a callback.
func (w *world) last() span {
	all := w.spans()
	if len(all) == 0 {
		return span{}
	}
	return all[len(all)-1]
}

// oneTerm checks that the first term goes on, and that there was no other.
func (w *world) oneTerm() {
	w.Helper()
	all := w.spans()
	require.Len(w, all, 1)
	require.True(w, all[0].end.IsZero(), "the callback still runs")
	require.True(w, all[0].term.Valid())
	require.True(w, w.leader().el.IsLeader())
}

// within waits until cond holds, and returns how long that took.
func (w *world) within(limit time.Duration, what string, cond func() bool) time.Duration {
	w.Helper()
	begin := time.Now()
	for !cond() {
		require.LessOrEqual(w, time.Since(begin), limit, "not within %v: %s", limit, what)
		time.Sleep(500 * time.Microsecond)
	}
	return time.Since(begin)
}

// awaitLeader waits for a leader other than those named.
func (w *world) awaitLeader(limit time.Duration, not ...*replica) *replica {
	w.Helper()
	w.within(limit, "a leader", func() bool { l := w.leader(); return l != nil && !slices.Contains(not, l) })
	return w.leader()
}

// awaitEnd waits for Run to return, and returns what it returned.
func (r *replica) awaitEnd(limit time.Duration) error {
	r.w.Helper()
	select {
	case <-r.done:
	case <-time.After(limit):
		require.Fail(r.w, "Run has not returned", "%s within %v", r.name, limit)
	}
	return r.err
}

// crash cuts a replica off for good, both ways, and lets its callback go on unseen: as a process that was killed.
func (r *replica) crash() {
	r.client.Partition(electortest.Both)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.running = slices.DeleteFunc(r.w.running, func(x *replica) bool { return x == r })
}

// kubectl edits the Lease as somebody outside the election.
func (w *world) kubectl(edit func(l *coordinationv1.Lease)) *coordinationv1.Lease {
	w.Helper()
	l := w.lease()
	edit(l)
	l, err := w.leases().Update(w.Context(), l, metav1.UpdateOptions{})
	require.NoError(w, err)
	return l
}

func (w *world) leases() coordinationv1client.LeaseInterface {
	return w.api.Client("kubectl").CoordinationV1().Leases(namespace)
}

func (w *world) lease() *coordinationv1.Lease {
	w.Helper()
	l, err := w.leases().Get(w.Context(), name, metav1.GetOptions{})
	require.NoError(w, err)
	return l
}

func (w *world) deleteLease() {
	w.Helper()
	require.NoError(w, w.leases().Delete(w.Context(), name, metav1.DeleteOptions{}))
}

// aLease makes a Lease that nobody in the world has written.
func (w *world) aLease(holder string, seconds int32) {
	w.Helper()
	now := metav1.NowMicro()
	_, err := w.leases().Create(w.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now, LeaseTransitions: new(int32)},
	}, metav1.CreateOptions{})
	require.NoError(w, err)
}

func holder(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

func reason(err error) string {
	var lost *elector.LostError
	if errors.As(err, &lost) {
		return lost.Reason.String()
	}
	return fmt.Sprint(err)
}

var createOptions metav1.CreateOptions

func objectMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}
