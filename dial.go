package elector

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/transport"
)

const (
	// maxWatches go over a connection that carries requests, too. A kube-apiserver allows 100 streams on each; some are left
	// for those that are being given up, so that net/http never dials because a connection is full. The other watches have
	// connections of their own, which fill up and stay so.
	maxWatches = 45

	// maxSecond is how many second attempts are under way at a time.
	maxSecond = 50
)

// links are the ways of a Client to the API: for requests, for watches, and for second attempts. They choose by the
// request's ctx, which has an attempt, and by its query.
type links struct {
	first, second, spare, watches *link
	turns                         turns         // on the first and the second
	seconds                       chan struct{} // one for each second attempt under way

	certificates bool        // the user is known by a client certificate
	old          atomic.Bool // the server has no HTTP/2
	idle         *time.Timer // closes connections that are not used

	mu    sync.Mutex // guards what follows
	users int        // Runs that have not returned
	conns map[*conn]struct{}
}

// idleLimit is how long a connection is kept that is not used, where no Run or only the spare link could need it.
const idleLimit = 90 * time.Second

func newLinks(tc *transport.Config) (*links, error) {
	tlsConfig, err := transport.TLSConfigFor(tc)
	if err != nil {
		return nil, err
	}
	ls := &links{seconds: make(chan struct{}, maxSecond), certificates: tc.HasCertAuth() || tc.HasCertCallback(), conns: map[*conn]struct{}{}}
	newLink := func() *link {
		return &link{links: ls, watches: make(chan struct{}, maxWatches), http1: ls.http1(tc, tlsConfig), http2: ls.http2(tc, tlsConfig)}
	}
	ls.first, ls.second, ls.spare, ls.watches = newLink(), newLink(), newLink(), newLink()
	ls.idle = time.AfterFunc(idleLimit, ls.closeIdle)
	return ls, nil
}

// closeIdle closes what has not been used for idleLimit: the spare connection, and without a Run all.
func (ls *links) closeIdle() {
	ls.spare.closeIdle()
	ls.mu.Lock()
	used := ls.users > 0
	ls.mu.Unlock()
	if !used {
		ls.first.closeIdle()
		ls.second.closeIdle()
		ls.watches.closeIdle()
	}
}

// WrappedRoundTripper lets client-go find the transport behind.
func (ls *links) WrappedRoundTripper() http.RoundTripper { return ls.first.http2 }

// RoundTrip carries a request out.
func (ls *links) RoundTrip(req *http.Request) (*http.Response, error) {
	a := attemptOf(req.Context())
	if a == nil || a.spare {
		defer ls.idle.Reset(idleLimit)
	}
	switch {
	case isWatch(req.URL):
		return ls.watch(req)
	case a == nil:
		return ls.ask(req, need{})
	case a.spare:
		return ls.askAgain(req)
	default:
		return ls.ask(req, a.need)
	}
}

func isWatch(u *url.URL) bool {
	return strings.Contains(u.RawQuery, "watch=") && u.Query().Get("watch") != "false"
}

// ask carries a request out when it has its turn.
func (ls *links) ask(req *http.Request, n need) (*http.Response, error) {
	t := ls.turns.take(req.Context(), n)
	if t == nil {
		return notCarried(req)
	}
	resp, err := []*link{ls.first, ls.second}[t.link].carryUntil(req, func() { ls.turns.end(t) })
	if err == nil {
		ls.turns.answered(t, req.Method != http.MethodGet, resp.StatusCode >= http.StatusTooManyRequests)
	}
	return resp, err
}

// askAgain carries a second attempt out when there is room for it.
func (ls *links) askAgain(req *http.Request) (*http.Response, error) {
	select {
	case ls.seconds <- struct{}{}:
		return ls.spare.carryUntil(req, func() { <-ls.seconds })
	case <-req.Context().Done():
		return notCarried(req)
	}
}

// notCarried is the end of a request that was given up before there was room for it.
func notCarried(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		req.Body.Close() // as a RoundTripper has to
	}
	return nil, context.Cause(req.Context())
}

// watch opens a watch, beside requests while there is room.
func (ls *links) watch(req *http.Request) (*http.Response, error) {
	for _, l := range []*link{ls.first, ls.second} {
		select {
		case l.watches <- struct{}{}:
			return l.carryUntil(req, func() { <-l.watches })
		default:
		}
	}
	return ls.watches.carry(req)
}

// use keeps connections open until unuse.
func (ls *links) use() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.users++
}

// unuse closes all connections after the last user.
func (ls *links) unuse() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.users--; ls.users > 0 {
		return
	}
	for c := range ls.conns {
		delete(ls.conns, c)
		c.Conn.Close()
	}
}

// admit takes in a connection that was made. net/http goes on to dial when the request is given up, and would keep for
// ever what it gets after the last Run has ended.
func (ls *links) admit(ctx context.Context, made net.Conn) (net.Conn, error) {
	c := &conn{Conn: made, links: ls, made: time.Now()}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.users == 0 && attemptOf(ctx) != nil {
		made.Close()
		return nil, errNoRun
	}
	ls.conns[c] = struct{}{}
	return c, nil
}

// A conn is a connection that knows when something was read from it last.
type conn struct {
	net.Conn
	links *links
	made  time.Time
	read  atomic.Int64 // a time.Duration after made
}

// Read reads.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.read.Store(int64(time.Since(c.made)))
	}
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	c.links.mu.Lock()
	delete(c.links.conns, c)
	c.links.mu.Unlock()
	return c.Conn.Close()
}

// silentSince reports whether nothing has been read since then.
func (c *conn) silentSince(t time.Time) bool {
	return c.lastRead().Before(t)
}

func (c *conn) lastRead() time.Time { return c.made.Add(time.Duration(c.read.Load())) }

// A link has its own connections: one, or where the server allows fewer streams on it, as many as it takes. They do not
// come from client-go's cache of transports, which would keep them for ever.
type link struct {
	links   *links
	watches chan struct{} // one for each beside requests

	http2 *http.Transport // dials one at a time, whatever waits for it
	http1 *http.Transport // each request under way needs a connection of its own
}

func (ls *links) http1(tc *transport.Config, tlsConfig *tls.Config) *http.Transport {
	return ls.transport(tc, cmp.Or(tlsConfig, &tls.Config{}).Clone(), func() error { return nil })
}

func (ls *links) http2(tc *transport.Config, tlsConfig *tls.Config) *http.Transport {
	tlsConfig = cmp.Or(tlsConfig, &tls.Config{}).Clone()
	tlsConfig.VerifyConnection = func(state tls.ConnectionState) error {
		if state.NegotiatedProtocol != "h2" {
			ls.old.Store(true)
		}
		return ls.notOld()
	}
	t := ls.transport(tc, tlsConfig, ls.notOld)
	t.MaxConnsPerHost = 1 // dialing, or with room for another stream
	return t
}

func (ls *links) transport(tc *transport.Config, tlsConfig *tls.Config, usable func() error) *http.Transport {
	dial := (&net.Dialer{Timeout: dialLimit, KeepAlive: 30 * time.Second}).DialContext
	if tc.DialHolder != nil {
		dial = tc.DialHolder.Dial
	}
	t := utilnet.SetTransportDefaults(&http.Transport{
		Proxy:               tc.Proxy,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: dialLimit,
		DisableCompression:  tc.DisableCompression,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if err := usable(); err != nil {
				return nil, err
			}
			made, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return ls.admit(ctx, made)
		},
	})
	t.IdleConnTimeout = 0 // a standby's next request, after a day, should not have to dial; and see closeIdle
	return t
}

// dialLimit is how long a connection may take to be made, and how long its handshake: a link waits for it, and the spare
// one goes another way.
const dialLimit = 10 * time.Second

var errOld = errors.New("the server has no HTTP/2")

func (ls *links) notOld() error {
	if ls.old.Load() {
		return errOld
	}
	return nil
}

// carryUntil carries a request out, and calls end when its answer has been read.
func (l *link) carryUntil(req *http.Request, end func()) (*http.Response, error) {
	done := sync.OnceFunc(end)
	resp, err := l.carry(req)
	if err != nil {
		done()
		return nil, err
	}
	resp.Body = finishing(resp.Body, done)
	return resp, nil
}

func (l *link) carry(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" || l.links.old.Load() {
		return l.http1.RoundTrip(req)
	}
	resp, err := l.http2.RoundTrip(req)
	if err == nil || !errors.Is(err, errOld) {
		return resp, err
	}
	again := req.Clone(req.Context()) // it has not been sent
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return l.http1.RoundTrip(again)
}

func (l *link) closeIdle() {
	l.http2.CloseIdleConnections()
	l.http1.CloseIdleConnections()
}
