package elector

import (
	"net"
	"net/http/httptrace"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/transport"
)

// L12: which connections end, and when.

// A far connection is one whose other end is in the test's hands.
type far struct {
	net.Conn
	near net.Conn
}

func connected(t *testing.T, ls *links, a *attempt) *far {
	near, other := net.Pipe()
	t.Cleanup(func() { other.Close() })
	ctx, _ := newAttempt(t.Context(), false, true)
	made, err := ls.admit(ctx, near)
	require.NoError(t, err)
	if a != nil {
		a.gotConn(httptrace.GotConnInfo{Conn: made})
	}
	return &far{other, made}
}

func (f *far) isClosed() bool { return f.near.SetDeadline(time.Time{}) != nil }

// says sends a byte, and waits until it has been read.
func (f *far) says(t *testing.T) {
	time.Sleep(time.Millisecond)
	go f.Write([]byte{0})
	_, err := f.near.Read(make([]byte, 1))
	require.NoError(t, err)
	time.Sleep(time.Millisecond)
}

func testLinks(t *testing.T, tc *transport.Config) *links {
	ls, err := newLinks(tc)
	require.NoError(t, err)
	ls.use()
	t.Cleanup(ls.unuse)
	return ls
}

func TestAConnectionIsClosedOnlyIfNothingWasAnsweredOnItSinceTheRequestWasSent(t *testing.T) {
	ls := testLinks(t, &transport.Config{})
	_, first := newAttempt(t.Context(), false, true)
	_, other := newAttempt(t.Context(), false, true)
	c := connected(t, ls, first)
	c.says(t)
	first.suspect(time.Time{})
	assert.False(t, c.isClosed(), "another request was answered since")
	other.gotConn(httptrace.GotConnInfo{Conn: c.near})
	first.suspect(time.Time{})
	assert.False(t, c.isClosed())
	_, unsent := newAttempt(t.Context(), false, true)
	unsent.suspect(time.Time{})
	assert.False(t, c.isClosed(), "of the request that has not left, this says nothing")
	time.Sleep(time.Millisecond)
	other.suspect(time.Time{})
	assert.True(t, c.isClosed(), "nothing since the second")
}

func TestAWatchSuspectsAConnectionThatIsSilentSinceItLastShowedSomething(t *testing.T) {
	ls := testLinks(t, &transport.Config{})
	_, watch := newAttempt(t.Context(), false, true)
	c := connected(t, ls, watch)
	c.says(t)
	heard := time.Now()
	c.says(t)
	watch.suspect(heard)
	assert.False(t, c.isClosed(), "another watch has shown something since")
	watch.suspect(time.Now())
	assert.True(t, c.isClosed())
}

func TestARefusedUserLosesItsConnectionOnlyIfThatHasItsCertificate(t *testing.T) {
	for _, certificate := range []bool{false, true} {
		ls := testLinks(t, &transport.Config{})
		ls.certificates = certificate
		_, a := newAttempt(t.Context(), false, true)
		c := connected(t, ls, a)
		a.discard()
		assert.Equal(t, certificate, c.isClosed())
	}
}

func TestConnectionsEndWithTheLastOfSeveralRuns(t *testing.T) {
	ls := testLinks(t, &transport.Config{})
	ls.use()
	c := connected(t, ls, nil)
	ls.unuse()
	assert.False(t, c.isClosed(), "one Run goes on")
	ls.unuse()
	assert.True(t, c.isClosed())
	ls.use() // for the cleanup
}

func TestAnAttemptHasLeftWhenItIsFirstGivenAConnection(t *testing.T) {
	_, a := newAttempt(t.Context(), false, true)
	assert.False(t, a.dials(0), "in a rate limiter, where a second attempt would wait, too")
	a.getConn("")
	assert.False(t, a.dials(time.Hour))
	assert.True(t, a.dials(0), "the connection cannot be made")
	_, left := a.left()
	assert.False(t, left)
	a.gotConn(httptrace.GotConnInfo{})
	at, left := a.left()
	assert.True(t, left)
	assert.False(t, a.dials(0))
	a.gotConn(httptrace.GotConnInfo{})
	again, _ := a.left()
	assert.Equal(t, at, again, "it may have been carried out the first time")

	_, untold := newAttempt(t.Context(), false, false)
	_, left = untold.left()
	assert.True(t, left, "nobody would tell")
}
