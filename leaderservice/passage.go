package leaderservice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// A passage is a request that is being passed on.
type passage struct {
	*forwarder
	to         *route
	connecting atomic.Bool // the transport has said that it has no connection yet, so nothing was sent
	err        error
}

var errNotLeader = errors.New("the replica does not lead")

// pass passes a request on, for as long as the same leader leads, and gives the route back. If nothing was answered it
// says why, and whether the request can be passed on again.
func (f *forwarder) pass(to *route, w http.ResponseWriter, r *http.Request) (why *trouble, again bool) {
	done := false
	defer func() { f.leave(to, done) }() // the proxy panics if the answer breaks off
	p := &passage{forwarder: f, to: to}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(to.over, cancel)()
	out := r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { p.connecting.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { p.connecting.Store(false); f.reached(to) },
	}))
	lent := &body{ReadCloser: r.Body}
	if r.Body != nil && r.Body != http.NoBody {
		out.Body = lent
	}
	(&httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      f.opts.Transport,
		FlushInterval:  time.Millisecond, // also for answers of a known length; of others, each part at once
		ModifyResponse: p.answered,
		ErrorHandler:   func(_ http.ResponseWriter, _ *http.Request, err error) { p.err = err },
	}).ServeHTTP(w, out)
	if p.err == nil {
		done = true
		return nil, false
	}
	why = p.failed(r)
	return why, lent.takeBack() && !why.sent
}

// failed says why nothing was answered, and what that says of the route.
func (p *passage) failed(r *http.Request) *trouble {
	identity := p.to.identity
	cause := fmt.Errorf("%s at %s: %w", identity, p.to.host, p.err)
	var op *net.OpError
	var untrusted *tls.CertificateVerificationError
	bad := errors.As(p.err, &untrusted)
	var why *trouble
	switch {
	case errors.Is(p.err, errNotLeader):
		why = &trouble{answer: identity + " does not lead any more"}
		p.lost(p.to, false, why)
		return why
	case !bad && !p.connecting.Load() && !(errors.As(p.err, &op) && op.Op == "dial"):
		return &trouble{connectionBroke,
			fmt.Sprintf("the connection to the leader, %s, broke: the request may have been carried out", identity), cause, true}
	case r.Context().Err() != nil:
		p.suspect(p.to)
		return &trouble{answer: "the request ended before it was passed on"}
	case bad:
		why = &trouble{log: notTrusted, cause: cause,
			answer: fmt.Sprintf("the certificate of the leader, %s, is not trusted; this replica's log has the reason", identity)}
	default:
		why = &trouble{log: notReached, cause: cause,
			answer: fmt.Sprintf("the leader, %s, cannot be reached", identity)}
	}
	p.lost(p.to, true, why)
	return why
}

var (
	connectionBroke = &line{func(log klog.Logger, cause error) { log.Error(cause, "The connection to the leader broke") }}
	notTrusted      = &line{func(log klog.Logger, cause error) { log.Error(cause, "The leader's certificate is not trusted") }}
	notReached      = &line{func(log klog.Logger, cause error) { log.Error(cause, "The leader cannot be reached") }}
)

func (p *passage) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = p.opts.Scheme, p.to.host, r.In.Host
	r.Out.URL.RawQuery = r.In.URL.RawQuery // ReverseProxy takes out what it cannot parse; that is for the leader to judge
	r.Out.Trailer = r.In.Trailer           // the server fills it when the body has been read; ReverseProxy has copied it before that
	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	r.SetXForwarded()
	r.Out.Header.Add(forwardedBy, p.to.guard)
}

// answered is called before anything of the answer is passed back.
func (p *passage) answered(r *http.Response) error {
	if slices.Contains(r.Header.Values(notLeader), p.to.guard) {
		return errNotLeader
	}
	p.reached(p.to)
	return nil
}

// A body is a request's, lent to one passage. It is not closed, so that another passage can have it, if nothing was read.
type body struct {
	io.ReadCloser
	begun, over atomic.Bool
	eof         bool
}

func (b *body) Read(p []byte) (n int, err error) {
	b.begun.Store(true)
	switch {
	case b.eof: // the transport makes sure, and the server closes the body as soon as the answer begins
		return 0, io.EOF
	case b.over.Load():
		return 0, http.ErrBodyReadAfterClose
	}
	n, err = b.ReadCloser.Read(p)
	b.eof = err == io.EOF
	return n, err
}

func (b *body) Close() error { return nil }

// takeBack ends reading. It returns false if some of the body may be gone.
func (b *body) takeBack() bool {
	b.over.Store(true)
	return !b.begun.Load()
}
