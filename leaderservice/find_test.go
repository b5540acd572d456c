package leaderservice

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/utils/ptr"
)

// askMany sends requests to a standby at once, each with its own time limit, and returns the answers' codes.
func (n *network) askMany(s *standby, requests int, limit time.Duration) (codes map[int]int, longest time.Duration) {
	var mu sync.Mutex
	var all sync.WaitGroup
	codes = map[int]int{}
	begin := time.Now()
	for range requests {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(n.Context(), limit)
			defer cancel()
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
			mu.Lock()
			defer mu.Unlock()
			codes[w.Code]++
			longest = max(longest, time.Since(begin))
		})
	}
	all.Wait()
	return codes, longest
}

func TestWhileTheApiHangsRequestsShareALookUpAndEachEndsWithItsCtx(t *testing.T) {
	inNetwork(t, func(n *network) {
		var gets atomic.Int64
		s := n.standby("10.0.0.2")
		s.slices.intercept(func(string) error { gets.Add(1); return lost("") })
		s.leads("pod-1", "10.0.0.1")
		codes, longest := n.askMany(s, 10, 700*time.Millisecond)
		require.Equal(n, map[int]int{http.StatusServiceUnavailable: 10}, codes)
		require.Equal(n, 700*time.Millisecond, longest)
		require.Equal(n, int64(1), gets.Load())

		_, longest = n.askMany(s, 10, time.Minute)
		require.Equal(n, defaultWait, longest)
		require.Equal(n, int64(1), gets.Load(), "it is still under way")
	})
}

func TestALookUpServesTheNextRequestsAlthoughTheOneThatBeganItHasEnded(t *testing.T) {
	inNetwork(t, func(n *network) {
		n.serve("10.0.0.1:8080", saysName("pod-1"))
		s := n.standby("10.0.0.2")
		s.slices.intercept(func(string) error { time.Sleep(time.Second); return nil })
		s.leads("pod-1", "10.0.0.1")
		codes, _ := n.askMany(s, 1, 10*time.Millisecond)
		require.Equal(n, map[int]int{http.StatusServiceUnavailable: 1}, codes)
		codes, longest := n.askMany(s, 10, time.Minute)
		require.Equal(n, map[int]int{http.StatusOK: 10}, codes)
		require.Less(n, longest, time.Second)
	})
}

// As that of a StatefulSet's pod, whose name is its identity.
func TestALeaderWhoseAddressHasChangedIsFoundAlthoughItsIdentityIsTheSame(t *testing.T) {
	inNetwork(t, func(n *network) {
		n.serve("10.0.0.1:8080", saysName("before"))
		s := n.standby("10.0.0.2")
		s.leads("pod-1", "10.0.0.1")
		code, answer := n.send("10.0.0.2", request(http.MethodGet, nil))
		require.Equal(n, "before", answer, code)
		n.remove("10.0.0.1:8080")
		n.serve("10.0.0.9:8080", saysName("after"))
		s.leads("pod-1", "10.0.0.9")
		code, answer = n.send("10.0.0.2", request(http.MethodGet, nil))
		require.Equal(n, "after", answer, code)
	})
}

func TestAnEndpointSliceThatWasEditedAndPutRightIsReadAgain(t *testing.T) {
	for what, edited := range map[string]string{"nobody": "10.0.0.8", "another program": "10.0.0.9", "another standby": "10.0.0.3"} {
		t.Run(what, func(t *testing.T) {
			inNetwork(t, func(n *network) {
				n.serve("10.0.0.1:8080", saysName("pod-1"))
				n.serve("10.0.0.9:8080", http.NotFoundHandler())
				s := n.standby("10.0.0.2")
				other := n.standby("10.0.0.3")
				other.slices.store = s.slices.store
				other.leader.Store(ptr.To("pod-1"))
				s.leads("pod-1", edited)
				_, answer := n.send("10.0.0.2", request(http.MethodGet, nil))
				require.NotEqual(n, "pod-1", answer)
				s.leads("pod-1", "10.0.0.1")
				time.Sleep(checkInterval + time.Second)
				n.send("10.0.0.2", request(http.MethodGet, nil)) // it may go there once more
				time.Sleep(time.Second)
				code, answer := n.send("10.0.0.2", request(http.MethodGet, nil))
				require.Equal(n, "pod-1", answer, code)
			})
		})
	}
}

// A black hole: clients give up before the connection does.
func TestAnAddressThatClientsGiveUpOnIsReadAgain(t *testing.T) {
	inNetwork(t, func(n *network) {
		n.serve("10.0.0.9:8080", saysName("pod-1"))
		s := n.standby("10.0.0.2", func(o *Options) {
			o.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == "10.0.0.1:8080" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return n.dial(ctx, network, address)
			}
		})
		s.leads("pod-1", "10.0.0.1")
		n.askMany(s, 1, 100*time.Millisecond)
		s.leads("pod-1", "10.0.0.9")
		time.Sleep(2 * time.Second)
		n.askMany(s, 1, 100*time.Millisecond)
		code, answer := n.send("10.0.0.2", request(http.MethodGet, nil))
		require.Equal(n, "pod-1", answer, code)
	})
}

func TestALeaderThatRestartsAtItsAddressIsFoundWhileTheApiIsAway(t *testing.T) {
	inNetwork(t, func(n *network) {
		n.serve("10.0.0.1:8080", saysName("pod-1"))
		s := n.standby("10.0.0.2")
		s.leads("pod-1", "10.0.0.1")
		n.askMany(s, 1, time.Minute)
		n.remove("10.0.0.1:8080")
		s.slices.intercept(lost)
		time.AfterFunc(300*time.Millisecond, func() { n.serve("10.0.0.1:8080", saysName("pod-1")) })
		codes, _ := n.askMany(s, 100, time.Minute)
		require.Equal(n, map[int]int{http.StatusOK: 100}, codes)
	})
}

func TestALeaderThatIsLookedForInVainIsLookedForEverLessOften(t *testing.T) {
	for what, address := range map[string]string{"it has not written its address": "", "it cannot be reached": "10.0.0.1"} {
		t.Run(what, func(t *testing.T) {
			inNetwork(t, func(n *network) {
				var gets atomic.Int64
				s := n.standby("10.0.0.2", func(o *Options) { o.Wait = time.Minute })
				s.slices.intercept(func(string) error { gets.Add(1); return nil })
				s.leads("pod-1", address)
				codes, _ := n.askMany(s, 10, 10*time.Second)
				require.Equal(n, map[int]int{http.StatusServiceUnavailable: 10}, codes)
				require.Less(n, gets.Load(), int64(16))
				require.Greater(n, gets.Load(), int64(10))
				require.Less(n, n.dialed(), 30)
			})
		})
	}
}

func TestManyRequestsThatWaitAreWokenByTheChangeAndAskForNothingMeanwhile(t *testing.T) {
	inNetwork(t, func(n *network) {
		const requests = 50
		n.serve("10.0.0.1:8080", saysName("pod-1"))
		s := n.standby("10.0.0.2")
		time.AfterFunc(900*time.Millisecond, func() { s.leads("pod-1", "10.0.0.1") })
		codes, longest := n.askMany(s, requests, time.Minute)
		require.Equal(n, map[int]int{http.StatusOK: requests}, codes)
		require.Less(n, longest, 920*time.Millisecond)
		require.Less(n, s.asked.Load(), int64(3*requests+300), "each when it comes and when it is woken")
	})
}

func TestOfManyRequestsThatWaitFewTryALeaderThatCannotBeReached(t *testing.T) {
	inNetwork(t, func(n *network) {
		const requests = 50
		n.serve("10.0.0.1:8080", saysName("pod-1"))
		s := n.standby("10.0.0.2")
		s.leads("pod-1", "10.0.0.1")
		n.askMany(s, 1, time.Minute)
		n.remove("10.0.0.1:8080")
		before := n.dialed()
		n.askMany(s, 1, time.Minute)
		codes, _ := n.askMany(s, requests, time.Minute)
		require.Equal(n, map[int]int{http.StatusServiceUnavailable: requests}, codes)
		require.Less(n, n.dialed()-before, 20)
		n.serve("10.0.0.1:8080", saysName("pod-1"))
		codes, _ = n.askMany(s, requests, time.Minute)
		require.Equal(n, map[int]int{http.StatusOK: requests}, codes)
	})
}

// As soon as one is connected the others follow, though its answer takes a minute.
func TestALeaderThatCanBeReachedAgainIsGoodForAllRequestsAtOnce(t *testing.T) {
	inNetwork(t, func(n *network) {
		s := n.standby("10.0.0.2")
		s.leads("pod-1", "10.0.0.1")
		time.AfterFunc(300*time.Millisecond, func() {
			n.serve("10.0.0.1:8080", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) }))
		})
		codes, _ := n.askMany(s, 100, time.Hour)
		require.Equal(n, map[int]int{http.StatusOK: 100}, codes)
	})
}

// The transport may be one that says nothing of its connections.
func TestAnAnswerIsGoodForAllRequestsWhateverTheTransport(t *testing.T) {
	for what, takes := range map[string]time.Duration{"a quick answer": 0, "slow answers": time.Minute} {
		t.Run(what, func(t *testing.T) {
			inNetwork(t, func(n *network) {
				wait := time.Second
				if takes > 0 {
					wait = time.Minute // one a second goes ahead
				}
				s := n.standby("10.0.0.2", func(o *Options) { o.Transport, o.Wait = mute{o.Transport}, wait })
				s.leads("pod-1", "10.0.0.1")
				time.AfterFunc(300*time.Millisecond, func() {
					n.serve("10.0.0.1:8080", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(takes) }))
				})
				codes, _ := n.askMany(s, 20, time.Hour)
				require.Equal(n, map[int]int{http.StatusOK: 20}, codes)
			})
		})
	}
}

// mute is a transport without httptrace.
type mute struct{ http.RoundTripper }

func (m mute) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(r.Context(), cancel)
	resp, err := m.RoundTripper.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
	}
	return resp, err
}

func TestWithoutAWaitARequestWaitsForTheLookUpOnly(t *testing.T) {
	inNetwork(t, func(n *network) {
		n.serve("10.0.0.1:8080", saysName("pod-1"))
		s := n.standby("10.0.0.2", func(o *Options) { o.Wait = -1 })
		codes, longest := n.askMany(s, 10, time.Minute)
		require.Equal(n, map[int]int{http.StatusServiceUnavailable: 10}, codes)
		require.LessOrEqual(n, longest, waitInterval, "nobody leads")
		s.leads("pod-1", "10.0.0.1")
		codes, _ = n.askMany(s, 10, time.Minute)
		require.Equal(n, map[int]int{http.StatusOK: 10}, codes)
		n.remove("10.0.0.1:8080")
		codes, longest = n.askMany(s, 10, time.Minute)
		require.Equal(n, map[int]int{http.StatusServiceUnavailable: 10}, codes)
		require.Less(n, longest, 10*time.Millisecond)
		s.leads("pod-3", "")
		codes, longest = n.askMany(s, 10, time.Minute)
		require.Equal(n, map[int]int{http.StatusServiceUnavailable: 10}, codes)
		require.Less(n, longest, 20*time.Millisecond)
	})
}

func TestALeaderIsFoundByIPv6(t *testing.T) {
	inNetwork(t, func(n *network) {
		n.serve("[fd00::1]:8080", saysName("pod-1"))
		s := n.standby("fd00::2")
		s.leads("pod-1", "fd00::1")
		code, answer := n.send("[fd00::2]", request(http.MethodGet, nil))
		require.Equal(n, "pod-1", answer, code)
	})
}

func TestARequestThatWaitsGoesToWhoeverLeadsInTheEnd(t *testing.T) {
	inNetwork(t, func(n *network) {
		s := n.standby("10.0.0.2", func(o *Options) { o.Wait = 10 * time.Second })
		n.serve("10.0.0.4:8080", saysName("pod-4"))
		s.leads("pod-1", "10.0.0.1")
		time.AfterFunc(time.Second, func() { s.leads("", "") })
		time.AfterFunc(2*time.Second, func() { s.leads("pod-3", "") })
		time.AfterFunc(3*time.Second, func() { s.leads("pod-4", "10.0.0.4") })
		codes, longest := n.askMany(s, 100, time.Minute)
		require.Equal(n, map[int]int{http.StatusOK: 100}, codes)
		require.Less(n, longest, 3100*time.Millisecond)
	})
}

// Otherwise the bubble would not end, either.
func TestWhatWatchesForALeaderEndsWithTheLastRequest(t *testing.T) {
	inNetwork(t, func(n *network) {
		s := n.standby("10.0.0.2")
		n.askMany(s, 100, 100*time.Millisecond)
		time.Sleep(time.Second)
		before := s.asked.Load()
		time.Sleep(time.Hour)
		require.Equal(n, before, s.asked.Load())
	})
}
