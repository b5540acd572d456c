package elector_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
)

// L12: many elections share one client. Virtual time, but TLS and HTTP/2.

func (w *wire) client() *elector.Client {
	client, err := elector.NewClient(w.config())
	require.NoError(w, err)
	return client
}

func TestThirtyElectionsHaveOneConnection(t *testing.T) {
	overWire(t, func(w *wire) {
		all := w.elect(30, w.client())
		time.Sleep(time.Minute)
		w.oneTermEach(all)
		assert.Equal(t, 1, w.made(), "connections")
		assert.Equal(t, 30, w.watches())
		assert.LessOrEqual(t, w.requests("GET"), 60, "one before, and one after the watch has begun")
	})
}

// Two connections carry requests and 90 watches, the others 90 watches each.
func TestSixHundredElectionsHaveFewConnectionsAndAllTheirWatches(t *testing.T) {
	overWire(t, func(w *wire) {
		all := w.elect(600, w.client())
		time.Sleep(10 * time.Second)
		w.oneTermEach(all)
		assert.LessOrEqual(t, w.made(), 8, "connections")
		assert.Equal(t, 600, w.watches())
	})
}

// A busyServer answers so many requests a second, whichever of those that wait.
type busyServer struct {
	mu      sync.Mutex // guards what follows
	waiting map[chan struct{}]bool
	most    int // that have waited
}

// serve answers at that rate until ctx ends.
func (b *busyServer) serve(ctx context.Context, rate *atomic.Int32) {
	for ; ctx.Err() == nil; time.Sleep(time.Second / time.Duration(rate.Load())) {
		b.mu.Lock()
		for turn := range b.waiting { // in any order
			delete(b.waiting, turn)
			close(turn)
			break
		}
		b.mu.Unlock()
	}
}

func (b *busyServer) wait(ctx context.Context) {
	turn := make(chan struct{})
	b.mu.Lock()
	b.waiting[turn] = true
	b.most = max(b.most, len(b.waiting))
	b.mu.Unlock()
	select {
	case <-turn:
	case <-ctx.Done():
		b.mu.Lock()
		delete(b.waiting, turn)
		b.mu.Unlock()
	}
}

func (b *busyServer) waits() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

func (b *busyServer) waited() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := b.most
	b.most = 0
	return most
}

// overABusyServer answers that many requests a second.
func overABusyServer(t *testing.T, f func(w *wire, b *busyServer, rate *atomic.Int32)) {
	overWire(t, func(w *wire) {
		b := &busyServer{waiting: map[chan struct{}]bool{}}
		var rate atomic.Int32
		rate.Store(60)
		w.running.Go(func() { b.serve(w.ctx, &rate) })
		w.intercept(func(_ http.ResponseWriter, r *http.Request) bool { b.wait(r.Context()); return false })
		f(w, b, &rate)
	})
}

// What waits in a server that has too much to do is answered ever later, and not in order.
func TestOfManyElectionsOverABusyServerNoneLosesItsTerm(t *testing.T) {
	overABusyServer(t, func(w *wire, b *busyServer, _ *atomic.Int32) {
		all := w.elect(250, w.client())
		time.Sleep(2 * time.Minute)
		begun := terms(all)
		b.waited()
		time.Sleep(3 * time.Minute)
		for _, s := range all {
			require.True(t, s.el.IsLeader(), s.name)
		}
		require.Equal(t, begun, terms(all))
		assert.LessOrEqual(t, b.waited(), 50, "at once in the server")
	})
}

// At twenty writes a second nobody can hold more than 200 Leases, each of which needs one in ten seconds.
func TestOfManyElectionsOverABusyServerAsManyAreHeldAsItCan(t *testing.T) {
	overABusyServer(t, func(w *wire, _ *busyServer, rate *atomic.Int32) {
		all := w.elect(250, w.client())
		time.Sleep(90 * time.Second)
		rate.Store(20)
		time.Sleep(10 * time.Second)
		held, begun := 0, terms(all)
		for range 60 {
			time.Sleep(time.Second)
			for _, s := range all {
				if s.el.IsLeader() {
					held++
				}
			}
		}
		assert.GreaterOrEqual(t, held/60, 120)
		assert.LessOrEqual(t, terms(all)-begun, 60, "terms in a minute")
	})
}

func TestOfManyElectionsOverABusyServerThatRefusesNoneLosesItsTerm(t *testing.T) {
	overABusyServer(t, func(w *wire, b *busyServer, rate *atomic.Int32) {
		var refused atomic.Int32
		w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			if b.waits() >= 20 {
				refused.Add(1)
				rw.WriteHeader(http.StatusTooManyRequests)
				return true
			}
			b.wait(r.Context())
			return false
		})
		all := w.elect(250, w.client())
		time.Sleep(90 * time.Second)
		rate.Store(40)
		time.Sleep(10 * time.Second)
		begun := terms(all)
		refused.Store(0)
		time.Sleep(time.Minute)
		assert.Equal(t, begun, terms(all))
		assert.LessOrEqual(t, refused.Load(), int32(250))
	})
}

// terms is how many have begun.
func terms(all []*shard) (n int) {
	for _, s := range all {
		n += int(s.begun.Load())
	}
	return n
}

// A slow disk is no busy server: all are slow, however few there are.
func TestWritesThatAreSlowAllAtOnceCostNoneOfManyElectionsItsTerm(t *testing.T) {
	overWire(t, func(w *wire) {
		all := w.elect(60, w.client())
		time.Sleep(time.Minute)
		w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				select {
				case <-time.After(4500 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
			return false
		})
		time.Sleep(time.Minute)
		w.oneTermEach(all)
	})
}

// The others are quick: it is not because there are many.
func TestASlowWebhookForSomeOfManyLeasesCostsNoTerm(t *testing.T) {
	overWire(t, func(w *wire) {
		all := w.elect(250, w.client())
		time.Sleep(30 * time.Second)
		w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			i, err := strconv.Atoi(strings.TrimPrefix(path.Base(r.URL.Path), "shard-"))
			if r.Method == http.MethodPut && err == nil && i < 100 {
				time.Sleep(1200 * time.Millisecond)
			}
			return false
		})
		time.Sleep(2 * time.Minute)
		w.oneTermEach(all)
	})
}

// Questions would make a server slower that is slow (L2).
func TestAStandbyAsksNothingWhileTheConnectionOfItsWatchIsAlive(t *testing.T) {
	for _, alive := range []bool{true, false} {
		overWire(t, func(w *wire) {
			others := w.api.Client("others").CoordinationV1().Leases(namespace)
			renew := func(name string) {
				lease, err := others.Get(w.ctx, name, metav1.GetOptions{})
				require.NoError(t, err)
				lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
				_, err = others.Update(w.ctx, lease, metav1.UpdateOptions{})
				require.NoError(t, err)
			}
			for _, name := range []string{"shard-0", "shard-1"} {
				_, err := others.Create(w.ctx, &coordinationv1.Lease{
					ObjectMeta: metav1.ObjectMeta{Name: name},
					Spec: coordinationv1.LeaseSpec{
						HolderIdentity: ptr.To("else"), LeaseDurationSeconds: ptr.To[int32](15),
						AcquireTime: ptr.To(metav1.NowMicro()), RenewTime: ptr.To(metav1.NowMicro()),
					},
				}, metav1.CreateOptions{})
				require.NoError(t, err)
			}
			w.elect(2, w.client())
			time.Sleep(time.Second)
			before := w.requests("GET shard-0")
			for range 12 {
				if alive {
					renew("shard-1") // which comes by the same connection
				}
				time.Sleep(time.Second)
			}
			assert.Equal(t, alive, w.requests("GET shard-0") == before, "alive: %v", alive)
		})
	}
}

// A slow network makes all of them dial, ask and watch while the first handshake is under way.
func TestTwoHundredAndFiftyElectionsThatStartAtOnceOverASlowNetworkDialAFewTimes(t *testing.T) {
	overWire(t, func(w *wire) {
		w.latency = 2 * time.Second
		all := w.elect(250, w.client())
		time.Sleep(time.Minute)
		w.oneTermEach(all)
		assert.LessOrEqual(t, w.made(), 10, "connections")
		assert.Equal(t, 250, w.watches())
	})
}

func TestAServerThatAllowsFewStreamsGetsMoreConnections(t *testing.T) {
	overWire(t, func(w *wire) {
		all := w.elect(100, w.client())
		time.Sleep(time.Minute)
		assert.Equal(t, 100, w.watches())
		made := w.made()
		time.Sleep(time.Minute)
		w.oneTermEach(all)
		assert.Equal(t, made, w.made(), "and keeps them")
	}, func(s *httptest.Server) { s.Config.HTTP2.MaxConcurrentStreams = 20 })
}

func TestAServerWithoutHTTP2GetsAConnectionForEachWatch(t *testing.T) {
	overWire(t, func(w *wire) {
		all := w.elect(10, w.client())
		time.Sleep(time.Minute)
		w.oneTermEach(all)
		assert.Equal(t, 10, w.watches())
	}, func(s *httptest.Server) { s.EnableHTTP2 = false })
}

func TestOneStuckLeaseOfThirtyIsNotNoticedByTheOthers(t *testing.T) {
	overWire(t, func(w *wire) {
		all := w.elect(30, w.client())
		time.Sleep(time.Minute)
		made, watches := w.made(), w.requests("WATCH")
		gets := w.requests("GET") - w.requests("GET shard-0")
		failed := failures(all[1:])
		w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut || path.Base(r.URL.Path) != "shard-0" {
				return false
			}
			<-r.Context().Done()
			return true
		})
		time.Sleep(2 * time.Minute)
		assert.LessOrEqual(t, w.made()-made, 2, "new connections")
		assert.Equal(t, gets, w.requests("GET")-w.requests("GET shard-0"), "reads of the others")
		assert.Equal(t, watches, w.requests("WATCH"))
		assert.Equal(t, failed, failures(all[1:]))
		w.oneTermEach(all[1:])
	})
}

func TestADeadConnectionCostsNoneOfThirtyItsTerm(t *testing.T) {
	overWire(t, func(w *wire) {
		all := w.elect(30, w.client())
		time.Sleep(time.Minute)
		first := w.kill(0)
		time.Sleep(2 * time.Minute)
		w.oneTermEach(all)
		assert.True(t, first.closed.Load())
		assert.LessOrEqual(t, w.made(), 3, "a spare one, and one in its place")
		assert.Equal(t, 30, w.watches())
	})
}

// The watches beyond the first have a connection of their own. No renewal finds out that it is dead.
func TestADeadConnectionCostsNoneOfManyItsTermAndTheWatchesComeBack(t *testing.T) {
	for dead := range 3 { // two for the requests and 90 watches, one for the other watches
		overWire(t, func(w *wire) {
			all := w.elect(100, w.client())
			time.Sleep(30 * time.Second)
			made := w.made()
			gone := w.kill(dead)
			time.Sleep(time.Minute)
			w.oneTermEach(all)
			assert.True(t, gone.closed.Load())
			assert.LessOrEqual(t, w.made(), made+3, "a spare one, and two in its place")
			gets := w.requests("GET")
			time.Sleep(30 * time.Second)
			assert.Equal(t, gets, w.requests("GET"), "who has no watch polls")
		})
	}
}

// A queue is a client-side rate limiter in which each request waits, as behind the work that shares it.
type queue struct {
	flowcontrol.RateLimiter
	wait time.Duration
}

func (q queue) Wait(ctx context.Context) error {
	select {
	case <-time.After(q.wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestARateLimiterInWhichRequestsWaitCostsNoTerm(t *testing.T) {
	for _, wait := range []time.Duration{4400 * time.Millisecond, 6 * time.Second} {
		t.Run(wait.String(), func(t *testing.T) {
			overWire(t, func(w *wire) {
				cfg := w.config()
				cfg.RateLimiter = queue{flowcontrol.NewFakeAlwaysRateLimiter(), wait}
				client, err := coordinationv1client.NewForConfig(cfg)
				require.NoError(t, err)
				all := w.elect(1, client)
				time.Sleep(10 * time.Minute)
				w.oneTermEach(all)
				w.stop()
				w.closeAll() // client-go keeps its connections
			})
		})
	}
}

func TestATokenThatIsRefusedIsReadAnew(t *testing.T) {
	overWire(t, func(w *wire) {
		file := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
		cfg := w.config()
		cfg.BearerTokenFile = file
		var accepted atomic.Value
		accepted.Store("old")
		refused := 0
		w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			if strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") == accepted.Load() {
				return false
			}
			refused++
			rw.WriteHeader(http.StatusUnauthorized)
			return true
		})
		client, err := elector.NewClient(cfg)
		require.NoError(t, err)
		all := w.elect(1, client)
		time.Sleep(time.Minute + time.Second) // the file was just read
		accepted.Store("new")
		require.NoError(t, os.WriteFile(file, []byte("new"), 0o600))
		time.Sleep(time.Minute)
		w.oneTermEach(all)
		assert.Equal(t, 1, refused)
		assert.Equal(t, 1, w.made(), "the connection has nothing to do with it")
	})
}

// Forty Leases whose writes hang, as behind a webhook, leave 50 of the 90 places that two links have.
func TestManyStuckLeasesAreNotNoticedByOneWithAShortDeadline(t *testing.T) {
	overWire(t, func(w *wire) {
		client := w.client()
		var begun atomic.Int32
		quick, err := elector.New(client, elector.Options{
			Namespace: namespace, Name: "quick", LeaseDuration: 2 * time.Second, RenewDeadline: time.Second, RetryPeriod: 250 * time.Millisecond,
			Run: func(ctx context.Context) error { begun.Add(1); <-ctx.Done(); return nil },
		})
		require.NoError(t, err)
		w.running.Go(func() { assert.NoError(t, quick.Run(w.ctx)) })
		var n atomic.Int64
		answers := func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(time.Duration(50+100*(n.Add(1)%5)) * time.Millisecond) // as those of a server that has too much to do
			return false
		}
		w.intercept(answers)
		w.elect(40, client)
		time.Sleep(time.Minute)
		before := begun.Load()
		w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut || !strings.HasPrefix(path.Base(r.URL.Path), "shard-") {
				return answers(nil, r)
			}
			<-r.Context().Done()
			return true
		})
		time.Sleep(time.Minute)
		assert.Equal(t, before, begun.Load(), "terms of the one whose writes are answered")
		w.intercept(answers)
	})
}
