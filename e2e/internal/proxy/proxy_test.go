package proxy

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhatIsSentArrivesAndSoDoesTheEnd(t *testing.T) {
	p, server := start(t)
	client, served := connect(t, p, server)
	requireArrives(t, client, served)
	requireArrives(t, served, client)
	require.Equal(t, 1, p.Open())

	require.NoError(t, client.Close())
	rest, err := io.ReadAll(served)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.NoError(t, served.Close())
	require.Eventually(t, func() bool { return p.Open() == 0 }, 5*time.Second, time.Millisecond)
}

func TestASilentConnectionSwallowsEverythingAndANewOneWorks(t *testing.T) {
	p, server := start(t)
	client, served := connect(t, p, server)
	requireArrives(t, client, served)
	require.Equal(t, 1, p.Silence())
	require.Zero(t, p.Silence(), "it is silent already")
	require.Zero(t, p.Open())

	for range 100 {
		_, err := client.Write(make([]byte, 1<<16))
		require.NoError(t, err, "the sender sees nothing wrong")
	}
	_, err := served.Write([]byte("x"))
	require.NoError(t, err)
	requireNothing(t, served)
	requireNothing(t, client)

	again, servedAgain := connect(t, p, server)
	requireArrives(t, again, servedAgain)
	requireArrives(t, servedAgain, again)
	require.Equal(t, 1, p.Open())
}

func TestTheEndOfASilentConnectionIsNotReported(t *testing.T) {
	for name, end := range map[string]func(net.Conn) error{
		"closed": net.Conn.Close,
		"reset":  func(c net.Conn) error { _ = c.(*net.TCPConn).SetLinger(0); return c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p, server := start(t)
			client, served := connect(t, p, server)
			require.Equal(t, 1, p.Silence())
			require.NoError(t, end(client))
			requireNothing(t, served)
			_, err := served.Write([]byte("x"))
			require.NoError(t, err)
			requireNothing(t, served)
		})
	}
}

func TestADeafConnectionStillCarriesWhatTheClientSends(t *testing.T) {
	p, server := start(t)
	client, served := connect(t, p, server)
	require.Equal(t, 1, p.DropReplies(false))
	requireArrives(t, client, served)
	_, err := served.Write([]byte("reply"))
	require.NoError(t, err)
	requireNothing(t, client)

	again, servedAgain := connect(t, p, server)
	requireArrives(t, servedAgain, again)
}

func TestUntilAResetNewConnectionsAreDeafToo(t *testing.T) {
	p, server := start(t)
	require.Zero(t, p.DropReplies(true))
	client, served := connect(t, p, server)
	_, err := served.Write([]byte("reply"))
	require.NoError(t, err)
	requireNothing(t, client)

	p.Reset()
	for _, c := range []net.Conn{client, served} {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
		_, err := c.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "both notice")
	}
	again, servedAgain := connect(t, p, server)
	requireArrives(t, servedAgain, again)
}

func TestADelayHoldsBackWhatIsSentInOrderAndTheEnd(t *testing.T) {
	const delay = 200 * time.Millisecond
	p, server := start(t)
	client, served := connect(t, p, server)
	p.SetDelay(delay)
	sent := time.Now()
	for i := range 100 {
		_, err := client.Write([]byte{byte(i)})
		require.NoError(t, err)
	}
	require.NoError(t, client.Close())
	got, err := io.ReadAll(served)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(sent), delay)
	require.Len(t, got, 100)
	for i, b := range got {
		require.EqualValues(t, i, b)
	}
	require.NoError(t, served.Close())
	require.Eventually(t, func() bool { return p.Open() == 0 }, 5*time.Second, time.Millisecond)
}

func TestADelayOfRepliesLeavesRequestsAlone(t *testing.T) {
	const delay = 3 * time.Second
	p, server := start(t)
	client, served := connect(t, p, server)
	p.SetReplyDelay(delay)
	replied := time.Now()
	_, err := served.Write([]byte("reply"))
	require.NoError(t, err)
	requireArrives(t, client, served)
	require.Less(t, time.Since(replied), delay, "the request was not held back")
	require.NoError(t, client.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = io.ReadFull(client, make([]byte, 5))
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(replied), delay)
}

func TestWithoutAServerConnectionsEnd(t *testing.T) {
	p, server := start(t)
	require.NoError(t, server.Close())
	client, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// start returns a proxy and the server that it is for.
func start(t *testing.T) (*Proxy, net.Listener) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	p, err := Start(server.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p, server
}

// connect returns both ends of a new connection through the proxy, which is known to work.
func connect(t *testing.T, p *Proxy, server net.Listener) (client, served net.Conn) {
	client, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	served, err = server.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { served.Close() })
	requireArrives(t, client, served)
	return client, served
}

func requireArrives(t *testing.T, from, to net.Conn) {
	t.Helper()
	_, err := from.Write([]byte("hello"))
	require.NoError(t, err)
	got := make([]byte, 5)
	require.NoError(t, to.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err = io.ReadFull(to, got)
	require.NoError(t, err)
	require.NoError(t, to.SetReadDeadline(time.Time{}))
	require.Equal(t, "hello", string(got))
}

// requireNothing asserts that neither data nor an end arrives for a while.
func requireNothing(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}
