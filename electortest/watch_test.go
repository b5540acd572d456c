package electortest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	. "github.com/elector-go/elector/electortest"
)

// watching is a watch and what has arrived on it, with the time of arrival.
type watching struct {
	watch.Interface
	began  time.Time
	events []string // "holder@time"
	closed time.Duration
	mu     sync.Mutex // guards events and closed
}

func startWatch(t *testing.T, ctx context.Context, c *Client, opts metav1.ListOptions) *watching {
	t.Helper()
	opts.FieldSelector = "metadata.name=lease"
	w, err := c.CoordinationV1().Leases("ns").Watch(ctx, opts)
	require.NoError(t, err)
	got := &watching{Interface: w, began: time.Now()}
	go func() {
		for e := range w.ResultChan() {
			what := string(e.Type)
			if l, ok := e.Object.(*coordinationv1.Lease); ok {
				what = *l.Spec.HolderIdentity
			}
			got.mu.Lock()
			got.events = append(got.events, fmt.Sprintf("%s@%s", what, time.Since(got.began)))
			got.mu.Unlock()
		}
		got.mu.Lock()
		defer got.mu.Unlock()
		got.closed = time.Since(got.began)
	}()
	return got
}

// expect asserts what has arrived up to now.
func (w *watching) expect(t *testing.T, events ...string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Equal(t, events, w.events)
}

func TestWatchEventsArriveHalfARoundTripLateAndInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a, other := s.Client("a"), s.Client("other")
		a.SetLatency(200 * time.Millisecond)
		w := startWatch(t, t.Context(), a, metav1.ListOptions{})
		l := mustCreate(t, other, "1")
		time.Sleep(10 * time.Millisecond)
		a.SetLatency(0)
		l = mustPut(t, other, l, "2") // does not overtake
		time.Sleep(200 * time.Millisecond)
		mustPut(t, other, l, "3")
		w.expect(t, "1@100ms", "2@100ms", "3@210ms")
	})
}

func TestAWatchClosesByItselfWithinItsLifetime(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		var open []*watching
		for range 50 {
			open = append(open, startWatch(t, t.Context(), a, metav1.ListOptions{}))
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		for _, w := range open {
			require.GreaterOrEqual(t, w.closed, 5*time.Minute)
			require.LessOrEqual(t, w.closed, 10*time.Minute)
		}
		s.SetWatchLifetime(time.Second, time.Second)
		w := startWatch(t, t.Context(), a, metav1.ListOptions{})
		asked := startWatch(t, t.Context(), a, metav1.ListOptions{TimeoutSeconds: ptr.To(int64(7))})
		s.SetWatchLifetime(0, 0)
		forever := startWatch(t, t.Context(), a, metav1.ListOptions{})
		time.Sleep(100 * time.Hour)
		synctest.Wait()
		require.Equal(t, time.Second, w.closed)
		require.Equal(t, 7*time.Second, asked.closed)
		require.Zero(t, forever.closed)
	})
}

func TestAWatchEndsWithItsContextOnStopOnCloseWatchesAndWithTheServer(t *testing.T) {
	for name, end := range map[string]func(s *Server, w watch.Interface, cancel func()){
		"context":      func(_ *Server, _ watch.Interface, cancel func()) { cancel() },
		"Stop":         func(_ *Server, w watch.Interface, _ func()) { w.Stop() },
		"CloseWatches": func(s *Server, _ watch.Interface, _ func()) { s.Client("a").CloseWatches() },
		"Close":        func(s *Server, _ watch.Interface, _ func()) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Server) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w := startWatch(t, ctx, s.Client("a"), metav1.ListOptions{})
				time.Sleep(time.Second)
				require.Zero(t, w.closed)
				end(s, w, cancel)
				synctest.Wait()
				require.Equal(t, time.Second, w.closed)
				expectOpen(t, s, 0, 0)
			})
		})
	}
}

func expectOpen(t *testing.T, s *Server, wantSending, wantListening int) {
	t.Helper()
	sending, listening := s.OpenWatches()
	require.Equal(t, wantSending, sending)
	require.Equal(t, wantListening, listening)
}

func TestAWatchNobodyReadsFromEndsAllTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		l := mustCreate(t, s.Client("other"), "0")
		ctx, cancel := context.WithCancel(t.Context())
		w, err := s.Client("a").CoordinationV1().Leases("ns").Watch(ctx, metav1.ListOptions{})
		require.NoError(t, err)
		for i := range 3000 {
			l = mustPut(t, s.Client("other"), l, fmt.Sprint(i))
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		_, open := <-w.ResultChan()
		require.False(t, open)
	})
}

func TestASlowReaderLosesItsWatch(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		l := mustCreate(t, s.Client("other"), "0")
		w, err := s.Client("a").CoordinationV1().Leases("ns").Watch(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for i := range 3000 {
			l = mustPut(t, s.Client("other"), l, fmt.Sprint(i))
		}
		n := 0
		for range w.ResultChan() {
			n++
		}
		require.Less(t, n, 3000)
	})
}

func TestForbidWatchForbidsWatchesOnly(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		a.ForbidWatch(true)
		_, err := a.CoordinationV1().Leases("ns").Watch(t.Context(), metav1.ListOptions{})
		require.ErrorContains(t, err, `User "a" cannot watch resource "leases" in API group "coordination.k8s.io" in the namespace "ns"`)
		mustCreate(t, a, "a")
		a.ForbidWatch(false)
		startWatch(t, t.Context(), a, metav1.ListOptions{}).expect(t, "a@0s")
	})
}

func TestASilencedWatchStaysOpenAndDeliversNothingMore(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a, other := s.Client("a"), s.Client("other")
		l := mustCreate(t, other, "1")
		before := startWatch(t, t.Context(), a, metav1.ListOptions{})
		synctest.Wait()
		a.SilenceWatches(true)
		during := startWatch(t, t.Context(), a, metav1.ListOptions{})
		l = mustPut(t, other, l, "2")
		a.SilenceWatches(false)
		after := startWatch(t, t.Context(), a, metav1.ListOptions{})
		mustPut(t, other, l, "3")
		before.expect(t, "1@0s")
		during.expect(t)
		after.expect(t, "2@0s", "3@0s")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Zero(t, before.closed, "not even its end arrives")
		require.Zero(t, during.closed)
		require.NotZero(t, after.closed)
		a.CloseWatches()
		synctest.Wait()
		require.Equal(t, time.Hour, before.closed)
		require.Equal(t, time.Hour, during.closed)
	})
}

func TestSilenceAndPartitionLoseEventsUnderWay(t *testing.T) {
	for name, cut := range map[string]func(*Client){
		"silence":   func(c *Client) { c.SilenceWatches(true) },
		"partition": func(c *Client) { c.Partition(Inbound) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Server) {
				a := s.Client("a")
				a.SetLatency(time.Second)
				w := startWatch(t, t.Context(), a, metav1.ListOptions{})
				mustCreate(t, s.Client("other"), "1")
				time.Sleep(400 * time.Millisecond)
				cut(a)
				time.Sleep(time.Hour)
				w.expect(t)
				require.Zero(t, w.closed)
			})
		})
	}
}

func TestAWatchThatLostAnEventToAPartitionStaysSilent(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		s.SetWatchLifetime(0, 0)
		a, other := s.Client("a"), s.Client("other")
		w := startWatch(t, t.Context(), a, metav1.ListOptions{})
		l := mustCreate(t, other, "1")
		synctest.Wait()
		a.Partition(Both)
		a.Partition(NoPartition)
		l = mustPut(t, other, l, "2")
		w.expect(t, "1@0s", "2@0s") // nothing was lost
		a.Partition(Inbound)
		a.Partition(Outbound)
		l = mustPut(t, other, l, "3")
		w.expect(t, "1@0s", "2@0s", "3@0s") // the way in is open
		a.Partition(Inbound)
		l = mustPut(t, other, l, "4")
		a.Partition(NoPartition)
		mustPut(t, other, l, "5")
		w.expect(t, "1@0s", "2@0s", "3@0s")
		require.Zero(t, w.closed)
	})
}

func TestTheEndOfAWatchIsLostToAPartitionToo(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		w := startWatch(t, t.Context(), a, metav1.ListOptions{})
		a.Partition(Inbound)
		a.CloseWatches()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Zero(t, w.closed)
		a.Partition(NoPartition)
		a.CloseWatches()
		synctest.Wait()
		require.Equal(t, time.Hour, w.closed)
	})
}

func TestAWatchWhoseReplyIsLostIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		a.Intercept(always(Fault{LoseReply: true}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := a.CoordinationV1().Leases("ns").Watch(ctx, metav1.ListOptions{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		expectOpen(t, s, 0, 0)
		a.Intercept(nil)
		startWatch(t, t.Context(), a, metav1.ListOptions{}).expect(t)
		expectOpen(t, s, 1, 1)
	})
}

func TestAWatchFromLongAgoGetsExpired(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		other := s.Client("other")
		first := mustCreate(t, other, "0")
		l := first
		for i := range 5000 {
			l = mustPut(t, other, l, fmt.Sprint(i))
		}
		for _, from := range []string{"1", first.ResourceVersion} {
			w := startWatch(t, t.Context(), s.Client("a"), metav1.ListOptions{ResourceVersion: from})
			w.expect(t, "ERROR@0s")
			require.NotNil(t, w.Interface)
		}
		w := startWatch(t, t.Context(), s.Client("a"), metav1.ListOptions{ResourceVersion: l.ResourceVersion})
		mustPut(t, other, l, "new")
		w.expect(t, "new@0s")
	})
}

func TestReadersGetObjectsOfTheirOwn(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		w1, err := s.Client("a").CoordinationV1().Leases("ns").Watch(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		w2, err := s.Client("b").CoordinationV1().Leases("ns").Watch(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		stored := mustCreate(t, s.Client("a"), "me")
		*stored.Spec.HolderIdentity = "spoilt"
		for _, w := range []watch.Interface{w1, w2} {
			l := (<-w.ResultChan()).Object.(*coordinationv1.Lease)
			require.Equal(t, "me", *l.Spec.HolderIdentity)
			*l.Spec.HolderIdentity = "spoilt"
		}
		got, err := get(t.Context(), s.Client("c"))
		require.NoError(t, err)
		require.Equal(t, "me", *got.Spec.HolderIdentity)
	})
}

// BenchmarkUpdateWithWatches is what one event costs with 1000 watches on the same Lease, and how little watches on
// other Leases cost it.
func BenchmarkUpdateWithWatches(b *testing.B) {
	for _, name := range []string{"lease", "another"} {
		b.Run(name, func(b *testing.B) {
			s := NewServer()
			defer s.Close()
			for i := range 1000 {
				w, err := s.Client(fmt.Sprint(i)).CoordinationV1().Leases("ns").Watch(b.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
				require.NoError(b, err)
				go func() {
					for range w.ResultChan() {
					}
				}()
			}
			api := s.Client("writer").CoordinationV1().Leases("ns")
			l, err := api.Create(b.Context(), lease("0"), metav1.CreateOptions{})
			require.NoError(b, err)
			n := 0
			for b.Loop() {
				n++
				l.Spec.HolderIdentity = ptr.To(fmt.Sprint(n))
				l, err = api.Update(b.Context(), l, metav1.UpdateOptions{})
				require.NoError(b, err)
			}
		})
	}
}
