package elector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// NewForConfig is New with a client of the candidate's own, made from cfg: it has connections of its own and no
// client-side rate limit, so that renewals never wait behind the work of Run; "leader-election" in its user agent; and
// after a request without an answer the next one opens a new connection, so that a dead one does not cost the term.
//
// cfg itself is not changed. Where it has a Transport of its own, that one's connections are used as they are.
func NewForConfig(cfg *rest.Config, opts Options) (*Elector, error) {
	if cfg == nil {
		_, err := opts.complete()
		return nil, fmt.Errorf("elector: %w", errors.Join(errors.New("cfg: required: a *rest.Config, as from rest.InClusterConfig"), err))
	}
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = cmp.Or(cfg.UserAgent, rest.DefaultKubernetesUserAgent()) + "/leader-election"
	cfg.RateLimiter, cfg.QPS = nil, -1
	cfg.Timeout = 0 // it would end the watch too; each attempt has a limit of its own
	redial := func(time.Time) {}
	if cfg.Transport == nil {
		cfg.Dial, redial = redialling(cfg.Dial)
	}
	client, err := coordinationv1client.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("elector: cfg: %w", err)
	}
	e, err := New(client, opts)
	if err != nil {
		return nil, err
	}
	e.redial = redial
	return e, nil
}

// redialling returns a dial function, and one that closes the connections it has made, so that the next request opens
// another. A connection that is younger than the request without an answer stays: it may only be slow, and the next
// request may need all of the time that the handshake has taken.
func redialling(dial connrotation.DialFunc) (connrotation.DialFunc, func(sent time.Time)) {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	dialer := connrotation.NewDialer(dial)
	var last atomic.Pointer[time.Time] // when the youngest connection was made
	dialNow := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if now := time.Now(); err == nil {
			last.Store(&now)
		}
		return conn, err
	}
	return dialNow, func(sent time.Time) {
		if made := last.Load(); made == nil || !made.After(sent) {
			dialer.CloseAll()
		}
	}
}
