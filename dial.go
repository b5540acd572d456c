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

// How many requests are under way at once in a Client; the rest wait in the process, where nothing counts against them,
// and not in a server that has too much to do. A kube-apiserver allows 100 requests and watches on each connection. So,
// whatever waits, there are two connections for these, a spare one, and one for each hundred of the other watches.
const (
	maxRequests       = 100
	maxSpare          = 50
	maxSharingWatches = 50 // that share the connection of the requests
)

// links are the ways of a Client to the API: for requests, for second attempts, and for the watches that would leave the
// requests too little room. They choose by the request's ctx, which has an attempt, and by its query.
type links struct {
	requests, spare, watches *link

	sharing chan struct{} // one for each watch on the link of the requests

	certificates bool        // the user is known by a client certificate
	idle         *time.Timer // closes connections that are not used

	mu    sync.Mutex // guards what follows
	users int        // Runs that have not returned
	conns map[*conn]struct{}
}

// idleLimit is how long a connection is kept that is not used, where no Run or only the spare link could need it.
const idleLimit = 90 * time.Second

func newLinks(tc *transport.Config) (*links, error) {
	ls := &links{
		sharing:      make(chan struct{}, maxSharingWatches),
		certificates: tc.HasCertAuth() || tc.HasCertCallback(),
		conns:        map[*conn]struct{}{},
	}
	for _, l := range []struct {
		link  **link
		slots int
	}{{&ls.requests, maxRequests}, {&ls.spare, maxSpare}, {&ls.watches, 0}} {
		var err error
		if *l.link, err = ls.newLink(tc, l.slots); err != nil {
			return nil, err
		}
	}
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
		ls.requests.closeIdle()
		ls.watches.closeIdle()
	}
}

// WrappedRoundTripper lets client-go find the transport behind.
func (ls *links) WrappedRoundTripper() http.RoundTripper { return ls.requests.http2 }

// RoundTrip carries a request out.
func (ls *links) RoundTrip(req *http.Request) (*http.Response, error) {
	a := attemptOf(req.Context())
	if a == nil || a.spare {
		defer ls.idle.Reset(idleLimit)
	}
	switch {
	case isWatch(req.URL):
		return ls.watch(req)
	case a != nil && a.spare:
		return ls.spare.RoundTrip(req)
	default:
		return ls.requests.RoundTrip(req)
	}
}

func isWatch(u *url.URL) bool {
	return strings.Contains(u.RawQuery, "watch=") && u.Query().Get("watch") != "false"
}

// watch opens a watch. It takes none of the slots of the requests.
func (ls *links) watch(req *http.Request) (*http.Response, error) {
	select {
	case ls.sharing <- struct{}{}:
	default:
		return ls.watches.carry(req)
	}
	return ls.requests.carryWith(ls.sharing, req)
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
	return c.made.Add(time.Duration(c.read.Load())).Before(t)
}

// A link has its own connections: one, or where the server allows no more streams on it, as many as it takes. They do not
// come from client-go's cache of transports, which would keep them for ever.
type link struct {
	slots chan struct{} // one for each request under way; nil for no limit

	http2 *http.Transport // dials one at a time, whatever waits for it
	http1 *http.Transport // each request under way needs a connection of its own
	old   atomic.Bool     // the server has no HTTP/2
}

func (ls *links) newLink(tc *transport.Config, slots int) (*link, error) {
	tlsConfig, err := transport.TLSConfigFor(tc)
	if err != nil {
		return nil, err
	}
	tlsConfig = cmp.Or(tlsConfig, &tls.Config{})
	dial := (&net.Dialer{Timeout: dialLimit, KeepAlive: 30 * time.Second}).DialContext
	if tc.DialHolder != nil {
		dial = tc.DialHolder.Dial
	}
	l := &link{}
	if slots > 0 {
		l.slots = make(chan struct{}, slots)
	}
	newTransport := func(tlsConfig *tls.Config, usable func() error) *http.Transport {
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
	l.http1 = newTransport(tlsConfig.Clone(), func() error { return nil })
	tlsConfig.VerifyConnection = func(state tls.ConnectionState) error {
		if state.NegotiatedProtocol != "h2" {
			l.old.Store(true)
		}
		return l.notOld()
	}
	l.http2 = newTransport(tlsConfig, l.notOld)
	l.http2.MaxConnsPerHost = 1 // dialing, or with room for another stream
	return l, nil
}

// dialLimit is how long a connection may take to be made, and how long its handshake: a link waits for it, and the spare
// one goes another way.
const dialLimit = 10 * time.Second

var errOld = errors.New("the server has no HTTP/2")

func (l *link) notOld() error {
	if l.old.Load() {
		return errOld
	}
	return nil
}

// RoundTrip carries a request out when there is a slot for it.
func (l *link) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case l.slots <- struct{}{}:
		return l.carryWith(l.slots, req)
	case <-req.Context().Done():
		if req.Body != nil {
			req.Body.Close() // as a RoundTripper has to
		}
		return nil, context.Cause(req.Context())
	}
}

// carryWith carries a request out that has a slot, until its answer has been read.
func (l *link) carryWith(slots chan struct{}, req *http.Request) (*http.Response, error) {
	done := sync.OnceFunc(func() { <-slots })
	resp, err := l.carry(req)
	if err != nil {
		done()
		return nil, err
	}
	resp.Body = finishing(resp.Body, done)
	return resp, nil
}

func (l *link) carry(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" || l.old.Load() {
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
