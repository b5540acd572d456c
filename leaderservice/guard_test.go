package leaderservice

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// to is a proxy to a replica, as a program's own handler may be one.
func (n *network) to(address string) http.HandlerFunc {
	return (&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", address+":8080" },
		Transport: n.transport(),
	}).ServeHTTP
}

func TestTheLeadersHandlerCanBeAProxyToAnotherServiceBehindForward(t *testing.T) {
	for what, reachable := range map[string]bool{"whose leader answers": true, "whose leader cannot be reached": false} {
		t.Run(what, func(t *testing.T) {
			inShop(t, func(s *shop) {
				y := s.net.standby("10.1.0.2", func(o *Options) { o.Service = "stock" })
				y.leads("y-1", "10.1.0.1")
				if reachable {
					s.net.serve("10.1.0.1:8080", saysName("y-1"))
				}
				var runs atomic.Int64
				_, standby := s.twoServers(func(string) http.HandlerFunc {
					proxy := s.net.to("10.1.0.2")
					return func(w http.ResponseWriter, r *http.Request) {
						runs.Add(1)
						assert.NotContains(s, r.Header, forwardedBy, "it would go on to the other Service")
						proxy(w, r)
					}
				})
				answer := standby.get()
				require.Equal(s, int64(1), runs.Load())
				if reachable {
					require.Equal(s, "y-1", answer.Body.String())
				} else {
					require.Contains(s, answer.Body.String(), "y-1, cannot be reached", "it is the other Service's answer")
				}
			})
		})
	}
}

// Each is inside the other's Forward, on one port: X leads at pod-1, Y at the other. That cannot be answered.
func TestTwoServicesInEachOthersForwardMakeNoLoop(t *testing.T) {
	inShop(t, func(s *shop) {
		var runs atomic.Int64
		leader, standby := s.twoServers(saysName)
		for _, r := range []*replica{leader, standby} {
			opts := options(r.address)
			opts.Service, opts.Transport = "stock", s.net.transport()
			store := &store{}
			y, err := New(&client{store: store}, opts)
			require.NoError(s, err)
			store.put(&discoveryv1.EndpointSlice{})
			store.edit(func(e *discoveryv1.EndpointSlice) {
				e.UID, e.Annotations = "77aa", map[string]string{holderAnnotation: standby.name}
				e.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{standby.address}}}
			})
			inner := y.Forward(func() string { return standby.name }, saysName("y"))
			outer := r.service.Forward(r.el.Leader, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				runs.Add(1)
				inner.ServeHTTP(w, r)
			}))
			s.net.remove(r.address + ":8080")
			s.net.serve(r.address+":8080", outer)
		}
		code, _ := s.net.send(leader.address, request(http.MethodGet, nil))
		require.Equal(s, http.StatusServiceUnavailable, code)
		require.Less(s, runs.Load(), int64(20))
	})
}

func TestTheLeadersOwnAnswerMayHaveTheGuardsHeaders(t *testing.T) {
	for _, value := range []string{"true", "shop/orders-leader", "shop/orders-leader/", "shop/stock-leader/uid-0"} {
		for _, body := range []io.Reader{nil, strings.NewReader("x")} {
			inShop(t, func(s *shop) {
				var runs atomic.Int64
				_, standby := s.twoServers(func(name string) http.HandlerFunc {
					return func(w http.ResponseWriter, r *http.Request) {
						runs.Add(1)
						w.Header().Set("Elector-Not-Leader", value)
						w.Header().Set("Elector-Forwarded-By", value)
						_, _ = io.WriteString(w, name)
					}
				})
				code, answer := s.net.send(standby.address, request(http.MethodPost, body))
				require.Equal(s, "pod-1", answer, code)
				require.Equal(s, int64(1), runs.Load())
			})
		}
	}
}

// It sends back all that it is sent, in the header and in a trailer.
func TestTheGuardReachesNoHandlerAndNoClient(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoServers(func(string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				for key, values := range r.Header {
					w.Header()[key] = values
					w.Header()[http.TrailerPrefix+key] = values
				}
			}
		})
		for _, r := range []*replica{leader, standby} {
			answer := r.get(func(r *http.Request) { r.Header.Set("Elector-Not-Leader", "shop/orders-leader/1") })
			require.Equal(s, http.StatusOK, answer.Code)
			require.NotContains(s, answer.Result().Header, "Elector-Forwarded-By")
			require.NotContains(s, answer.Result().Trailer, "Elector-Forwarded-By")
		}
	})
}

func TestWhatClientsSendInTheGuardsHeaderIsTakenOff(t *testing.T) {
	inShop(t, func(s *shop) {
		var got http.Header
		leader, standby := s.twoServers(func(name string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { got = r.Header; saysName(name)(w, r) }
		})
		standby.get() // it knows the EndpointSlice
		for _, made := range []string{"", "10.0.0.3", "shop/orders-leader", "shop/orders-leader/", "shop/orders-leader/uid-1"} {
			for _, r := range []*replica{leader, standby} {
				answer := r.get(func(r *http.Request) {
					r.Header["Elector-Forwarded-By"] = []string{made, made}
					r.Header.Set("Connection", "Elector-Forwarded-By")
				})
				require.Equal(s, "pod-1", answer.Body.String(), made)
				require.NotContains(s, got, "Elector-Forwarded-By", made)
			}
		}
	})
}

func TestARequestIsPassedOnOnceOnly(t *testing.T) {
	inNetwork(t, func(n *network) {
		one, other := n.standby("10.0.0.1"), n.standby("10.0.0.2")
		for _, s := range []*standby{one, other} { // each takes the other for the leader
			s.leads("pod-1", "10.0.0.2")
		}
		other.leads("pod-2", "10.0.0.1")
		before := n.dialed()
		code, answer := n.send("10.0.0.1", request(http.MethodGet, nil))
		require.Equal(n, http.StatusServiceUnavailable, code)
		require.Contains(n, answer, "pod-1 does not lead any more")
		require.Less(n, n.dialed()-before, 10)
		require.Zero(n, one.local.Load()+other.local.Load())
	})
}

// One of them has read it before, and one after.
func TestARequestIsPassedOnOnceOnlyAlthoughTheEndpointSliceWasMadeAnew(t *testing.T) {
	inNetwork(t, func(n *network) {
		n.serve("10.0.0.9:8080", saysName("pod-9"))
		one, other := n.standby("10.0.0.1"), n.standby("10.0.0.2")
		for _, s := range []*standby{one, other} {
			s.leads("pod-9", "10.0.0.9")
			n.askMany(s, 1, time.Minute)
		}
		other.slices.edit(func(e *discoveryv1.EndpointSlice) { e.UID = "9e02" })
		time.Sleep(checkInterval + time.Second)
		n.askMany(other, 1, time.Minute)
		time.Sleep(time.Second)

		one.leads("pod-2", "10.0.0.2")
		other.leads("pod-1", "10.0.0.1")
		other.slices.edit(func(e *discoveryv1.EndpointSlice) { e.UID = "9e02" })
		before := n.dialed()
		code, answer := n.send("10.0.0.1", request(http.MethodGet, nil))
		require.Equal(n, http.StatusServiceUnavailable, code, answer)
		require.Less(n, n.dialed()-before, 10)
	})
}

// A pod that has just begun has the address that was the leader's, and has not seen the EndpointSlice.
func TestANewReplicaAtTheLeadersAddressSaysThatItDoesNotLead(t *testing.T) {
	inNetwork(t, func(n *network) {
		s := n.standby("10.0.0.2", func(o *Options) { o.Wait = 10 * time.Second })
		fresh := n.standby("10.0.0.1")
		n.serve("10.0.0.3:8080", saysName("pod-3"))
		s.leads("pod-1", "10.0.0.1")
		fresh.leads("pod-1", "10.0.0.1")
		time.AfterFunc(500*time.Millisecond, func() { s.leads("pod-3", "10.0.0.3") })
		codes, longest := n.askMany(s, 10, time.Minute)
		require.Equal(n, map[int]int{http.StatusOK: 10}, codes)
		require.Less(n, longest, 600*time.Millisecond)
	})
}

func TestTheRequestOfWhoeverCallsForwardIsNotChanged(t *testing.T) {
	inNetwork(t, func(n *network) {
		s := n.standby("10.0.0.2", func(o *Options) { o.Wait = -1 })
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Elector-Forwarded-By"] = []string{"10.0.0.3"}
		s.handler.ServeHTTP(httptest.NewRecorder(), r)
		require.Equal(n, []string{"10.0.0.3"}, r.Header["Elector-Forwarded-By"])
	})
}
