package elector

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/util/connrotation"
)

// L3: which connections end, and when.

// pipes dials connections that lead nowhere.
func pipes(context.Context, string, string) (net.Conn, error) {
	conn, _ := net.Pipe()
	return conn, nil
}

func pipeLink() *link { return &link{dialer: connrotation.NewDialer(pipes)} }

func (l *link) connect(t *testing.T, ctx context.Context) (isClosed func() bool) {
	conn, err := l.dial(ctx, "tcp", "api:443")
	require.NoError(t, err)
	return func() bool { return conn.SetDeadline(time.Time{}) != nil }
}

func TestAConnectionIsClosedForARequestThatItLeftUnansweredButNotForAnOlderOne(t *testing.T) {
	l := pipeLink()
	before := time.Now()
	time.Sleep(time.Millisecond)
	isClosed := l.connect(t, t.Context())
	l.redial(before)
	assert.False(t, isClosed(), "it was made for that request: its handshake may only be slow")
	time.Sleep(time.Millisecond)
	l.redial(time.Now())
	assert.True(t, isClosed())
}

func TestConnectionsEndWithTheLastOfSeveralRuns(t *testing.T) {
	c := &client{links: [2]*link{pipeLink(), pipeLink()}}
	ctx := c.use(t.Context())
	c.use(t.Context())
	first, spare := c.links[0].connect(t, ctx), c.links[1].connect(t, ctx)
	c.unuse()
	assert.False(t, first() || spare(), "one Run goes on")
	c.unuse()
	assert.True(t, first() && spare())
}
