package elector

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// An attempt is what is known of a request, or a watch, on its way: it travels in the request's ctx.
type attempt struct {
	spare bool // it goes by the spare connection
	need  need

	mu      sync.Mutex // guards what follows
	waiting time.Time  // since when it first waited for a connection; before that, for a rate limiter or a slot
	leftAt  time.Time  // when it was first given a connection, zero if it has not been
	conn    *conn      // the last one that it was given, nil if that is not a Client's
	given   time.Time  // when

	retryAfter atomic.Int64 // a time.Duration: what the API asked for, 0 for nothing
}

type attemptKey struct{}

// newAttempt returns the ctx for one request. An attempt whose client does not tell when it has sent a request has left at
// once.
func newAttempt(ctx context.Context, spare, tells bool) (context.Context, *attempt) {
	a := &attempt{spare: spare}
	if !tells {
		a.leftAt = time.Now()
	}
	ctx = context.WithValue(ctx, attemptKey{}, a)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GetConn: a.getConn, GotConn: a.gotConn}), a
}

func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

func (a *attempt) getConn(string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting.IsZero() {
		a.waiting = time.Now()
	}
}

func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.given = time.Now()
	if a.leftAt.IsZero() {
		a.leftAt = a.given
	}
	raw := info.Conn
	if t, ok := raw.(interface{ NetConn() net.Conn }); ok {
		raw = t.NetConn()
	}
	a.conn, _ = raw.(*conn)
}

// left returns when the request left the process, if it has. Before that it waits for a rate limiter, for a connection to
// be made, or for room on one, and it cannot have been carried out.
func (a *attempt) left() (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.leftAt, !a.leftAt.IsZero()
}

// dials reports whether the request waits for a connection to be made, for longer than limit. Then one may be made sooner
// for a second attempt. Not while it waits for a rate limiter or a slot, where the second would wait behind it (L12).
func (a *attempt) dials(limit time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.waiting.IsZero() && a.leftAt.IsZero() && time.Since(a.waiting) >= limit
}

// heard is when something was last read from its connection, zero if nothing was since it was given that.
func (a *attempt) heard() time.Time {
	a.mu.Lock()
	c, given := a.conn, a.given
	a.mu.Unlock()
	if c == nil || c.silentSince(given) {
		return time.Time{}
	}
	return c.lastRead()
}

// suspect closes the connection that the attempt was given, if nothing at all has been read from it since then, and since
// the time given. If other requests or watches are answered on it, what is slow is not the connection (L12).
func (a *attempt) suspect(since time.Time) {
	a.mu.Lock()
	c, given := a.conn, a.given
	a.mu.Unlock()
	if given.After(since) {
		since = given
	}
	if c != nil && c.silentSince(since) {
		c.Close()
	}
}

// discard closes the connection after a 401: a connection keeps the client certificate that it began with.
func (a *attempt) discard() {
	a.mu.Lock()
	c := a.conn
	a.mu.Unlock()
	if c != nil && c.links.certificates {
		c.Close()
	}
}

// hinting takes the Retry-After out of an answer and puts it into the attempt. Otherwise client-go would wait for that long
// inside the request, and repeat it, and the election would never see the answer (L5).
type hinting struct{ next http.RoundTripper }

// WrappedRoundTripper lets client-go find the transport behind.
func (h *hinting) WrappedRoundTripper() http.RoundTripper { return h.next }

// RoundTrip carries the request out.
func (h *hinting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := h.next.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return resp, err
	}
	a := attemptOf(req.Context())
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); a != nil && err == nil {
		a.retryAfter.Store(int64(time.Duration(seconds) * time.Second))
		resp.Header.Del("Retry-After")
	}
	return resp, nil
}
