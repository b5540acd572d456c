package elector

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/elector-go/elector/internal/write"
)

// WrapTransport is a write gate, to be passed to rest.Config.Wrap: a client behind it writes only while this candidate
// leads, even if the callback ignores its ctx. Reads and watches pass. A write fails with ErrNotLeader, wrapped, unless
// the term is valid by the clock at that moment. A write that is under way when the term ends is cut off. It may or may
// not have been carried out.
//
// If the request's context is derived from the callback's ctx, its term is the term of that ctx. So work left over from
// an earlier term cannot write in a later term. Any other request belongs to the term that the candidate serves at that
// moment.
//
// Every request is a write except GET, HEAD and OPTIONS, and except the reviews of authentication.k8s.io and
// authorization.k8s.io, which only ask a question although they are sent by POST. Exec, attach and port-forward are
// writes, by GET too; client-go takes over such a connection once it is open, so it is not cut off.
//
// Use a client without the gate for what a standby has to write, such as Events. The elector's own client never has it.
func (e *Elector) WrapTransport(next http.RoundTripper) http.RoundTripper {
	return &gate{e, next}
}

type gate struct {
	elector *Elector
	next    http.RoundTripper
}

// WrappedRoundTripper lets client-go find the transport behind the gate, for example to close its connections.
func (g *gate) WrappedRoundTripper() http.RoundTripper { return g.next }

// RoundTrip lets a request through, or refuses it.
func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	if !write.Is(req) {
		return g.next.RoundTrip(req)
	}
	term, ok := req.Context().Value(g.elector).(Term)
	if !ok {
		term = g.elector.state.Load().term
	}
	var held *spell
	if term.term != nil {
		held = term.spell.Load() // read first: if it ends in between, what is sent is cut off
	}
	if !term.Valid() {
		if req.Body != nil {
			req.Body.Close() // as a RoundTripper has to
		}
		return nil, fmt.Errorf("elector: %s was not sent: %w", req.Method, refusal(term))
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	stop := context.AfterFunc(held.ctx, func() { cancel(cutOff(term)) })
	done := func() { stop(); cancel(nil) }
	answered := false
	defer func() {
		if !answered { // next may have panicked, too
			done()
		}
	}()
	resp, err := g.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		if ctx.Err() != nil && held.ctx.Err() != nil { // the callback's ctx, if it is that, ends then too
			err = fmt.Errorf("elector: %s: %w", req.Method, cutOff(term))
		}
		return nil, err
	}
	answered = true
	if resp.StatusCode != http.StatusSwitchingProtocols && fullySent(req) {
		stop() // it has been carried out, and its answer may be read to the end
	}
	if resp.Body == nil {
		resp.Body = http.NoBody // as http.Client has it
	}
	resp.Body = finishing(resp.Body, done)
	return resp, nil
}

// fullySent reports whether all of the request had been sent when its answer came. A body of unknown length may be a
// stream.
func fullySent(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.ContentLength > 0
}

// refusal is what a write gets whose term is not valid.
func refusal(t Term) error {
	if t.term != nil && t.whyNot() == ErrSuspended {
		return ErrSuspended
	}
	return ErrNotLeader
}

// cutOff is what a write gets that was under way when its term's authority ended.
func cutOff(t Term) error {
	return fmt.Errorf("the term ended while it was under way, and it may have been carried out: %w", refusal(t))
}

// finishing returns body with a function that is called once it is closed. A body that can be written to, such as that
// of an upgraded connection, can still be written to.
func finishing(body io.ReadCloser, done func()) io.ReadCloser {
	if rw, ok := body.(io.ReadWriteCloser); ok {
		return &upgraded{rw, done}
	}
	return &finished{body, done}
}

type finished struct {
	io.ReadCloser
	done func()
}

func (f *finished) Close() error {
	defer f.done()
	return f.ReadCloser.Close()
}

type upgraded struct {
	io.ReadWriteCloser
	done func()
}

func (u *upgraded) Close() error {
	defer u.done()
	return u.ReadWriteCloser.Close()
}
