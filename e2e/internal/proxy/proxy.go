// Package proxy stands between a client and a server on loopback and makes their connections fail in the way that is
// hardest to notice: without a word.
package proxy

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// A Proxy forwards TCP connections to one server. Start makes one; its methods may be called from any goroutine.
type Proxy struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	links  map[*link]struct{}
	closed bool
}

// Start listens on a free port of loopback for connections to server, a host and port.
func Start(server string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p := &Proxy{listener: listener, server: server, links: map[*link]struct{}{}}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens, as host and port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Silence makes the connections that are open now go silent for good, and returns how many they are: whatever either
// side still sends is swallowed, and the end of one side is not told to the other. New connections work.
func (p *Proxy) Silence() int {
	return p.count(func(l *link) bool { return l.silent.CompareAndSwap(false, true) })
}

// Open is how many connections are open and not silent.
func (p *Proxy) Open() int { return p.count(func(l *link) bool { return !l.silent.Load() }) }

func (p *Proxy) count(is func(*link) bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for l := range p.links {
		if is(l) {
			n++
		}
	}
	return n
}

// Close ends everything.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for l := range p.links {
		l.close()
	}
	p.mu.Unlock()
	p.running.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // Close has closed it
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// serve forwards one connection until both of its sides have ended.
func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		client.Close()
		return
	}
	l := &link{client: client.(*net.TCPConn), server: server.(*net.TCPConn)}
	defer l.close()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer p.forget(l)

	var both sync.WaitGroup
	both.Go(func() { l.carry(l.server, l.client) })
	both.Go(func() { l.carry(l.client, l.server) })
	both.Wait()
}

func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// A link is one connection: the client's to the proxy and the proxy's to the server.
type link struct {
	client, server *net.TCPConn
	silent         atomic.Bool
}

// carry passes on what arrives, and at last the end, while the link is not silent. When it is, it goes on reading, so
// that the sender's machine gets its acknowledgements and sees nothing wrong.
func (l *link) carry(to, from *net.TCPConn) {
	_, _ = io.Copy(unlessSilent{l, to}, from) // an error of a connection is its end
	if !l.silent.Load() {
		_ = to.CloseWrite()
	}
}

func (l *link) close() {
	l.client.Close()
	l.server.Close()
}

// unlessSilent is a side of the link to write to.
type unlessSilent struct {
	*link
	to io.Writer
}

func (w unlessSilent) Write(p []byte) (int, error) {
	if w.silent.Load() {
		return len(p), nil
	}
	return w.to.Write(p)
}
