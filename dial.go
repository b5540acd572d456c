package elector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/util/connrotation"
)

// NewForConfig is New with NewClient(cfg): a client of the candidate's own.
func NewForConfig(cfg *rest.Config, opts Options) (*Elector, error) {
	client, err := NewClient(cfg)
	if err != nil {
		_, also := opts.complete()
		return nil, errors.Join(err, prefixed(also))
	}
	return New(client, opts)
}

// NewClient returns a client for the Electors of one process to share. It has a connection of its own and no client-side
// rate limit, so that renewals never wait behind the work of Run; "leader-election" in its user agent; and a second
// connection, opened only when a request is overdue, so that a dead connection does not cost the term. New recognises it.
// Its connections are closed when the last Run of the Electors that share it has ended.
//
// cfg itself is not changed. Where it has a Transport, the connections of that Transport are used as they are.
func NewClient(cfg *rest.Config) (coordinationv1client.LeasesGetter, error) {
	if cfg == nil {
		return nil, errors.New("elector: cfg: required: a *rest.Config, as from rest.InClusterConfig")
	}
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = cmp.Or(cfg.UserAgent, rest.DefaultKubernetesUserAgent()) + "/leader-election"
	cfg.RateLimiter, cfg.QPS = nil, -1
	cfg.Timeout = 0 // it would end the watch too; each attempt has a limit of its own
	if cfg.Transport != nil {
		leases, err := coordinationv1client.NewForConfig(cfg)
		if err != nil {
			return nil, fmt.Errorf("elector: cfg: %w", err)
		}
		return leases, nil
	}
	c := &client{}
	for i := range c.links {
		l, err := newLink(cfg)
		if err != nil {
			return nil, fmt.Errorf("elector: cfg: %w", err)
		}
		c.links[i] = l
	}
	c.LeasesGetter = c.links[0].leases
	return c, nil
}

// A client has two connections to the API server: one for all requests, and a spare one for second attempts.
type client struct {
	coordinationv1client.LeasesGetter // of links[0]

	links [2]*link

	mu    sync.Mutex // guards users
	users int        // Runs that have not returned
}

// runKey is the key under which the ctx of a Run's requests has link.closed as it was when that Run began.
type runKey struct{}

// use returns the ctx for the requests of a Run that begins.
func (c *client) use(ctx context.Context) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users++
	return context.WithValue(ctx, runKey{}, c.links[0].closed.Load())
}

// unuse closes the connections after the last user.
func (c *client) unuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users > 0 {
		return
	}
	for _, l := range c.links {
		l.closed.Add(1)
		l.dialer.CloseAll()
	}
}

// A link is a client with a connection of its own. It does not come from client-go's cache of transports, which would
// keep it for ever.
type link struct {
	leases coordinationv1client.LeasesGetter
	dialer *connrotation.Dialer
	dialed atomic.Pointer[time.Time] // when the youngest connection was made
	closed atomic.Int64              // how often the last Run has ended
}

func newLink(cfg *rest.Config) (*link, error) {
	tc, err := cfg.TransportConfig()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := transport.TLSConfigFor(tc)
	if err != nil {
		return nil, err
	}
	dial := connrotation.DialFunc((&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
	if tc.DialHolder != nil {
		dial = tc.DialHolder.Dial
	}
	l := &link{dialer: connrotation.NewDialer(dial)}
	rt, err := transport.HTTPWrappersForConfig(tc, &hinting{utilnet.SetTransportDefaults(&http.Transport{
		Proxy:               tc.Proxy,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 30 * time.Second, // an attempt has a limit of its own
		DialContext:         l.dial,
		DisableCompression:  tc.DisableCompression,
	})})
	if err != nil {
		return nil, err
	}
	l.leases, err = coordinationv1client.NewForConfigAndClient(cfg, &http.Client{Transport: rt})
	return l, err
}

// dial makes a connection. net/http goes on to dial when the request is given up, and would keep for ever what it gets
// after the last Run has ended.
func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := l.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if closed, ours := ctx.Value(runKey{}).(int64); ours && l.closed.Load() != closed {
		conn.Close()
		return nil, errNoRun
	}
	now := time.Now()
	l.dialed.Store(&now)
	return conn, nil
}

// redial closes the connection, so that the next request opens another, unless it is younger than the request at sent
// that was not answered: then it may only be slow, and the next request may need all of the time that the handshake has
// taken.
func (l *link) redial(sent time.Time) {
	if dialed := l.dialed.Load(); dialed == nil || !dialed.After(sent) {
		l.dialer.CloseAll()
	}
}

// hinting takes the Retry-After out of an answer and puts it into the request's context. Otherwise client-go would wait
// for that long inside the request, and repeat it, and the election would never see the answer (L5).
type hinting struct{ next http.RoundTripper }

type retryAfterKey struct{}

// WrappedRoundTripper lets client-go find the transport behind.
func (h *hinting) WrappedRoundTripper() http.RoundTripper { return h.next }

// RoundTrip carries the request out.
func (h *hinting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := h.next.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return resp, err
	}
	hint, ours := req.Context().Value(retryAfterKey{}).(*atomic.Int64)
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); ours && err == nil {
		hint.Store(int64(time.Duration(seconds) * time.Second))
		resp.Header.Del("Retry-After")
	}
	return resp, nil
}
