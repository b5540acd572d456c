package leaderservice

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/electortest"
)

// joinWith starts a replica that serves local, by Forward, in the network.
func (s *shop) joinWith(local http.HandlerFunc, change ...func(*Options)) *replica {
	s.Helper()
	r := s.join(untilDone, append(change, func(o *Options) { o.Transport = s.net.transport() })...)
	r.handler = r.service.Forward(r.el.Leader, local)
	s.net.serve(r.address+":8080", r.handler)
	return r
}

func (s *shop) twoServers(local func(name string) http.HandlerFunc, change ...func(*Options)) (leader, standby *replica) {
	s.Helper()
	leader = s.joinWith(local("pod-1"), change...)
	time.Sleep(5 * time.Second)
	standby = s.joinWith(local("pod-2"), change...)
	time.Sleep(25 * time.Second)
	require.True(s, leader.el.IsLeader())
	return leader, standby
}

func saysName(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) }
}

func (r *replica) get(change ...func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, "http://orders.example.com/list?a=1;b", nil)
	for _, c := range change {
		c(req)
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w
}

func TestTheLeaderAnswersWhicheverReplicaIsAsked(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoServers(saysName)
		require.Equal(s, "pod-1", leader.get().Body.String())
		require.Equal(s, "pod-1", standby.get().Body.String())
		require.NoError(s, leader.el.StepDown(s.Context()))
		time.Sleep(time.Second)
		require.Equal(s, "pod-2", standby.get().Body.String())
		require.Equal(s, "pod-2", leader.get().Body.String())
	})
}

func TestARequestIsPassedOnAsItIs(t *testing.T) {
	inShop(t, func(s *shop) {
		var got *http.Request
		_, standby := s.twoServers(func(string) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) { got = r }
		})
		standby.get(func(r *http.Request) { r.Header.Set("X-Forwarded-For", "198.51.100.7") })
		require.Equal(s, "orders.example.com", got.Host)
		require.Equal(s, "/list?a=1;b", got.RequestURI)
		require.Equal(s, "198.51.100.7, 192.0.2.1", got.Header.Get("X-Forwarded-For"))
	})
}

func TestWhileNobodyLeadsTheAnswerIs503WithRetryAfter(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoServers(saysName)
		for _, r := range []*replica{leader, standby} {
			r.leases.Partition(electortest.Both)
		}
		time.Sleep(11 * time.Second)
		for _, r := range []*replica{leader, standby} {
			begin := time.Now()
			answer := r.get()
			require.InDelta(s, defaultWait.Seconds(), time.Since(begin).Seconds(), .1)
			require.Equal(s, http.StatusServiceUnavailable, answer.Code)
			require.Equal(s, "1", answer.Header().Get("Retry-After"))
		}
	})
}

func TestARequestWaitsForTheNextLeader(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoServers(saysName)
		leader.stop()
		time.Sleep(time.Millisecond) // it serves no more, and the standby knows no other yet
		require.Equal(s, leader.name, standby.el.Leader())
		require.Equal(s, "pod-2", standby.get().Body.String())
		<-leader.done
	})
}

func TestARequestThatWaitsIsServedHereAsSoonAsThisReplicaLeads(t *testing.T) {
	inShop(t, func(s *shop) {
		begin := time.Now()
		r := s.joinWith(saysName("pod-1"), func(o *Options) { o.Wait = time.Hour })
		require.Equal(s, "pod-1", r.get().Body.String())
		require.Less(s, time.Since(begin), time.Minute)
	})
}

func TestALeaderThatCannotBeReachedIs503AndABrokenConnectionIs502(t *testing.T) {
	inShop(t, func(s *shop) {
		_, standby := s.twoServers(saysName)
		s.net.remove("10.0.0.1:8080")
		require.Equal(s, http.StatusServiceUnavailable, standby.get().Code)
		s.net.serve("10.0.0.1:8080", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
		time.Sleep(time.Second)
		broken := standby.get()
		require.Equal(s, http.StatusBadGateway, broken.Code)
		require.Empty(s, broken.Header().Get("Retry-After"))
	})
}

func TestTheLeadersAddressIsReadOnceForManyRequests(t *testing.T) {
	inShop(t, func(s *shop) {
		_, standby := s.twoServers(saysName)
		reads := 0
		standby.slices.intercept(func(string) error { reads++; return nil })
		for range 100 {
			require.Equal(s, http.StatusOK, standby.get().Code)
		}
		require.Equal(s, 1, reads)
	})
}

// until is a handler that serves until its ctx ends, and notes when that was.
func until(ended *time.Time) func(string) http.HandlerFunc {
	return func(string) http.HandlerFunc {
		return func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); *ended = time.Now() }
	}
}

func TestARequestUnderWayEndsAtOnceWhenTheTermIsLost(t *testing.T) {
	inShop(t, func(s *shop) {
		var ended time.Time
		leader, _ := s.twoServers(until(&ended), func(o *Options) { o.Grace = time.Hour })
		leader.leases.Partition(electortest.Both)
		over := leader.el.Status().Term.ValidUntil()
		leader.get()
		require.WithinDuration(s, over, ended, 10*time.Millisecond)
		require.Equal(s, http.StatusServiceUnavailable, leader.get().Code, "and no other is served")
	})
}

func TestARequestUnderWayHasItsGraceAndTheLeaseIsKeptForIt(t *testing.T) {
	inShop(t, func(s *shop) {
		var ended time.Time
		leader, standby := s.twoServers(until(&ended), func(o *Options) { o.Grace = 7 * time.Second })
		stopped := time.Now().Add(time.Second)
		time.AfterFunc(time.Second, leader.stop)
		leader.get()
		require.WithinDuration(s, stopped.Add(7*time.Second), ended, 10*time.Millisecond)
		require.False(s, standby.el.IsLeader())
		time.Sleep(time.Second)
		require.True(s, standby.el.IsLeader())
	})
}

// The API is out of reach during the grace, which must not last longer than the term.
func TestGraceEndsWithTheTerm(t *testing.T) {
	inShop(t, func(s *shop) {
		var ended time.Time
		leader, _ := s.twoServers(until(&ended), func(o *Options) { o.Grace = time.Hour })
		leader.leases.Partition(electortest.Both)
		over := leader.el.Status().Term.ValidUntil()
		time.AfterFunc(time.Second, leader.stop)
		leader.get()
		require.WithinDuration(s, over, ended, 200*time.Millisecond)
	})
}

func TestTheTermIsKeptUntilTheLastRequestHasReturned(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoServers(func(string) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) } // deaf to its ctx
		})
		time.AfterFunc(time.Second, leader.stop)
		leader.get()
		require.False(s, standby.el.IsLeader())
		time.Sleep(time.Second)
		require.True(s, standby.el.IsLeader())
	})
}

// The old leader is frozen, as it were: it does not end what was passed on to it.
func TestWhatWasPassedOnEndsWhenAnotherLeads(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoServers(func(string) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }
		})
		leader.leases.Partition(electortest.Both)
		begin := time.Now()
		standby.get()
		require.True(s, standby.el.IsLeader())
		require.Less(s, time.Since(begin), 20*time.Second, "soon after it began to lead")
	})
}

// In real time and over real connections, because a handler takes a WebSocket's connection over from the server.
func TestAConnectionThatTheHandlerTookOverIsClosedWhenTheCallbackIsAskedToStop(t *testing.T) {
	api := electortest.NewServer()
	defer api.Close()
	s := &shop{T: t, api: api, slices: &store{}}
	stop, stopping := make(chan struct{}), make(chan struct{})
	r := s.join(func(ctx context.Context) error { <-ctx.Done(); close(stopping); <-stop; return nil })
	defer func() { <-r.done }()
	defer close(stop) // the work still drains
	server := httptest.NewServer(r.service.Forward(r.el.Leader, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		fmt.Fprint(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buf.Flush()
		_, _ = io.Copy(conn, conn)
	})))
	defer server.Close()
	require.Eventually(t, func() bool { return s.slices.leads() != "" }, time.Minute, 10*time.Millisecond)

	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	fmt.Fprintln(conn, "hello")
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "hello\n", line)

	r.stop()
	<-stopping
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = in.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}
