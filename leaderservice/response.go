package leaderservice

import (
	"bufio"
	"net"
	"net/http"
)

// A responseWriter is that of a request served here. It keeps track of a connection that the handler takes over, for
// the server does not end its context.
type responseWriter struct {
	http.ResponseWriter
	tenure *tenure
}

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush is http.Flusher's, for handlers that ask for that.
func (w *responseWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack is http.Hijacker's. The connection is closed when the term ends.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	tracked := &trackedConn{conn, w.tenure}
	if err := w.tenure.adopt(tracked); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return tracked, buf, nil
}

type trackedConn struct {
	net.Conn
	tenure *tenure
}

func (c *trackedConn) Close() error {
	c.tenure.forget(c)
	return c.Conn.Close()
}
