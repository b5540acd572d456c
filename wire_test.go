package elector_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// A wire is an API server over TLS and HTTP/2, with pipes for a network, in a bubble of virtual time. As on a
// kube-apiserver, a connection has 100 streams.
type wire struct {
	*testing.T
	ctx     context.Context // of the Runs
	api     *electortest.Server
	accept  chan net.Conn
	closed  chan struct{}
	close   func()
	running sync.WaitGroup
	stop    func()        // ends the Runs
	latency time.Duration // of each request, and of a connection

	mu    sync.Mutex                                               // guards what follows
	on    func(w http.ResponseWriter, r *http.Request) (done bool) // before the API
	conns []*strand                                                // that were made
	asked map[string]int                                           // requests, by verb, and by verb and Lease
	open  int                                                      // watches
}

// A strand is the client's end of a connection.
type strand struct {
	net.Conn
	dead   atomic.Bool // nothing arrives any more, either way
	closed atomic.Bool
}

func (s *strand) Write(p []byte) (int, error) {
	if s.dead.Load() && !s.closed.Load() {
		return len(p), nil
	}
	return s.Conn.Write(p)
}

func (s *strand) Read(p []byte) (int, error) {
	for {
		if n, err := s.Conn.Read(p); err != nil || !s.dead.Load() {
			return n, err
		}
	}
}

func (s *strand) Close() error {
	s.closed.Store(true)
	return s.Conn.Close()
}

// overWire runs f, ends the Runs that it has started, and sees that no connection is left.
func overWire(t *testing.T, f func(w *wire), setUp ...func(*httptest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		api := electortest.NewServer()
		ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
		w := &wire{T: t, ctx: ctx, api: api, accept: make(chan net.Conn), closed: make(chan struct{}), latency: roundTrip, asked: map[string]int{}}
		w.stop = func() { stop(); w.running.Wait() }
		w.close = sync.OnceFunc(func() { close(w.closed) })
		server := httptest.NewUnstartedServer(w.serve(serveLeases(api)))
		server.Listener.Close()
		server.Listener = w
		server.EnableHTTP2 = true
		server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 100}
		for _, change := range setUp {
			change(server)
		}
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		defer func() {
			w.intercept(nil)
			w.stop()
			assert.Zero(t, w.openConns(), "connections are left behind")
			api.Close()
			server.Close()
		}()
		f(w)
	})
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.accept:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.close()
	return nil
}

func (w *wire) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (w *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, other := net.Pipe()
	s := &strand{Conn: near}
	w.mu.Lock()
	w.conns = append(w.conns, s)
	w.mu.Unlock()
	time.Sleep(w.latency)
	select {
	case w.accept <- other:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *wire) config() *rest.Config {
	return &rest.Config{Host: "https://api.test", Dial: w.dial, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func (w *wire) serve(leases http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		verb, watch := r.Method, r.URL.Query().Get("watch") != ""
		w.mu.Lock()
		if watch {
			verb = "WATCH"
			w.open++
			defer func() {
				w.mu.Lock()
				w.open--
				w.mu.Unlock()
			}()
		}
		w.asked[verb]++
		w.asked[verb+" "+path.Base(r.URL.Path)]++
		on := w.on
		w.mu.Unlock()
		time.Sleep(w.latency)
		if on == nil || !on(rw, r) {
			leases.ServeHTTP(rw, r)
		}
	})
}

func (w *wire) intercept(on func(http.ResponseWriter, *http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on = on
}

func (w *wire) made() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.conns)
}

// kill lets nothing arrive any more on connection n, either way.
func (w *wire) kill(n int) *strand {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[n].dead.Store(true)
	return w.conns[n]
}

func (w *wire) openConns() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.conns {
		if !s.closed.Load() {
			n++
		}
	}
	return n
}

func (w *wire) closeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.conns {
		s.Close()
	}
}

func (w *wire) requests(of string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[of]
}

func (w *wire) watches() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open
}

// A shard is one of many elections in a process.
type shard struct {
	el            *elector.Elector
	name          string
	begun, failed atomic.Int32 // terms; requests
}

// elect starts n elections over one client.
func (w *wire) elect(n int, leases coordinationv1client.LeasesGetter) (all []*shard) {
	w.Helper()
	for i := range n {
		s := &shard{name: fmt.Sprint("shard-", i)}
		var err error
		s.el, err = elector.New(leases, elector.Options{
			Namespace: namespace, Name: s.name,
			Run:     func(ctx context.Context) error { s.begun.Add(1); <-ctx.Done(); return nil },
			Metrics: shardMetrics{elector.NoMetrics{}, s},
		})
		require.NoError(w, err)
		w.running.Go(func() { assert.NoError(w, s.el.Run(w.ctx)) })
		all = append(all, s)
	}
	return all
}

// oneTermEach sees that each leads, and has never lost its term.
func (w *wire) oneTermEach(all []*shard) {
	w.Helper()
	for _, s := range all {
		require.True(w, s.el.IsLeader(), s.name)
		require.Equal(w, int32(1), s.begun.Load(), s.name)
	}
}

// failures is how many requests of theirs have failed.
func failures(all []*shard) (n int) {
	for _, s := range all {
		n += int(s.failed.Load())
	}
	return n
}

type shardMetrics struct {
	elector.Metrics
	shard *shard
}

func (m shardMetrics) Request(_ types.NamespacedName, _ string, err error) {
	if err != nil {
		m.shard.failed.Add(1)
	}
}
