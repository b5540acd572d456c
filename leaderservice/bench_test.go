//go:build unix

package leaderservice

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkForward sends requests over TCP to a standby that passes them on to the leader, and to a plain proxy with the
// same transport. It reports the processor time that a request takes the client, the standby and the leader together.
func BenchmarkForward(b *testing.B) {
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "pod-1")
	}))
	defer leader.Close()
	transport := defaultTransport().(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, leader.Listener.Addr().String())
	}
	plain := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "10.0.0.1:8080"
			r.SetXForwarded()
		},
		Transport: transport,
	}
	flushing := &httputil.ReverseProxy{Rewrite: plain.Rewrite, Transport: transport, FlushInterval: -1}
	opts := options("10.0.0.2")
	opts.Transport = transport
	service, err := New(&client{store: &store{slice: sliceOf("pod-1", "10.0.0.1")}}, opts)
	require.NoError(b, err)
	forward := service.Forward(func() string { return "pod-1" }, http.NotFoundHandler())

	for _, clients := range []int{1, 16} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			for _, by := range []struct {
				name    string
				handler http.Handler
			}{{"plain", plain}, {"flushing", flushing}, {"Forward", forward}} {
				b.Run(method+"/clients="+strconv.Itoa(clients)+"/by="+by.name, func(b *testing.B) {
					benchmarkRequests(b, by.handler, method, clients)
				})
			}
		}
	}
}

func benchmarkRequests(b *testing.B, handler http.Handler, method string, clients int) {
	server := httptest.NewServer(handler)
	defer server.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	var failed atomic.Int64
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	used := processorTime(b)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				var body io.Reader
				if method == http.MethodPost {
					body = strings.NewReader("1234567890")
				}
				r, _ := http.NewRequest(method, server.URL, body)
				resp, err := transport.RoundTrip(r)
				if err != nil {
					failed.Add(1)
					continue
				}
				if answer, _ := io.ReadAll(resp.Body); string(answer) != "pod-1" {
					failed.Add(1)
				}
				resp.Body.Close()
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64((processorTime(b)-used).Microseconds())/float64(b.N), "cpu-µs/op")
	require.Zero(b, failed.Load())
}

// BenchmarkWaiting is 2,000 requests that wait for a second each, because nobody leads. It reports the processor time
// that they take, in hundredths of one core.
func BenchmarkWaiting(b *testing.B) {
	service, err := New(&client{store: &store{}}, options("10.0.0.2"))
	require.NoError(b, err)
	forward := service.Forward(func() string { return "" }, http.NotFoundHandler())
	begin, used := time.Now(), processorTime(b)
	for b.Loop() {
		var all sync.WaitGroup
		for range 2000 {
			all.Go(func() {
				forward.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
			})
		}
		all.Wait()
	}
	b.ReportMetric(100*float64(processorTime(b)-used)/float64(time.Since(begin)), "%core")
}

// processorTime is that of this process so far.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
