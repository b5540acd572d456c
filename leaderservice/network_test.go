package leaderservice

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A network is HTTP between pods, as it is, but in memory: so it can be in virtual time.
type network struct {
	*testing.T
	mu         sync.Mutex
	servers    map[string]*server
	transports []*http.Transport
	dials      int
}

func newNetwork(t *testing.T) *network { return &network{T: t, servers: map[string]*server{}} }

// A server listens on an address of the network.
type server struct {
	http.Server
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (s *server) Addr() net.Addr { return &net.TCPAddr{} }

func (s *server) Close() error { s.once.Do(func() { close(s.closed) }); return nil }

func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// serve starts a server. With a certificate it speaks TLS, HTTP/2 too.
func (n *network) serve(address string, h http.Handler, certificates ...tls.Certificate) {
	s := &server{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	s.Handler = h
	s.ErrorLog = log.New(io.Discard, "", 0)
	n.mu.Lock()
	n.servers[address] = s
	n.mu.Unlock()
	if len(certificates) > 0 {
		s.TLSConfig = &tls.Config{Certificates: certificates}
		go func() { _ = s.Server.ServeTLS(s, "", "") }()
		return
	}
	go func() { _ = s.Serve(s) }()
}

// remove ends a server, and its connections.
func (n *network) remove(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.servers[address]
	delete(n.servers, address)
	_ = s.Server.Close()
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	s, ok := n.servers[address]
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	if !ok {
		return nil, refused
	}
	client, conn := net.Pipe()
	select {
	case s.conns <- conn:
		return client, nil
	case <-s.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *network) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// transport is a pod's way into the network. It trusts certificates as the system does, if none is given.
func (n *network) transport() *http.Transport {
	t := defaultTransport().(*http.Transport)
	t.DialContext = n.dial
	n.mu.Lock()
	defer n.mu.Unlock()
	n.transports = append(n.transports, t)
	return t
}

func (n *network) close() {
	for address := range n.servers {
		n.remove(address)
	}
	for _, t := range n.transports {
		t.CloseIdleConnections()
	}
}

// send sends a request to a replica, as a client does that has no other connection.
func (n *network) send(address string, r *http.Request) (code int, answer string) {
	t := &http.Transport{DialContext: func(ctx context.Context, net, _ string) (net.Conn, error) { return n.dial(ctx, net, address+":8080") }}
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(n, err)
	return resp.StatusCode, string(body)
}

func request(method string, body io.Reader) *http.Request {
	r, err := http.NewRequest(method, "http://orders.example.com/", body)
	if err != nil {
		panic(err)
	}
	return r
}

func inNetwork(t *testing.T, f func(n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		defer func() { n.close(); time.Sleep(requestLimit + time.Second) }()
		f(n)
	})
}

// A standby is a replica without an election: who leads is as the test says.
type standby struct {
	handler http.Handler
	forward http.Handler // the same, with the logger of each request's own context
	slices  *client
	log     *logLines
	leader  atomic.Pointer[string]
	asked   atomic.Int64 // how often it asked for that
	local   atomic.Int64 // requests that it served itself, which it must not
}

func (n *network) standby(address string, change ...func(*Options)) *standby {
	n.Helper()
	s := &standby{slices: &client{store: &store{}}, log: &logLines{}}
	s.leader.Store(new(string))
	opts := options(address)
	opts.Transport = n.transport()
	for _, c := range change {
		c(&opts)
	}
	service, err := New(s.slices, opts)
	require.NoError(n, err)
	forward := service.Forward(
		func() string { s.asked.Add(1); return *s.leader.Load() },
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.local.Add(1) }))
	s.forward = forward
	log := funcr.New(s.log.add, funcr.Options{})
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		forward.ServeHTTP(w, r.WithContext(logr.NewContext(r.Context(), log)))
	})
	n.serve(net.JoinHostPort(address, "8080"), s.handler)
	return s
}

// leads makes somebody the leader. An empty address: it has not written it yet.
func (s *standby) leads(identity, address string) {
	s.slices.store.mu.Lock()
	s.slices.put(sliceOf(identity, address))
	s.slices.store.mu.Unlock()
	s.leader.Store(&identity)
}

func sliceOf(identity, address string) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{UID: "5c1d", Annotations: map[string]string{holderAnnotation: identity}}}
	if address != "" {
		slice.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{address}}}
	}
	return slice
}

// certificate is one that no system trusts.
func certificate(t *testing.T) tls.Certificate {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	require.NotEmpty(t, s.TLS.Certificates)
	return s.TLS.Certificates[0]
}
