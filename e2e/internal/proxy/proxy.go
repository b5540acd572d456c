// Package proxy stands between a client and a server on loopback and makes their connections fail in the ways that are
// hardest to notice: without a word, with replies that never come, or just slowly.
package proxy

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Proxy forwards TCP connections to one server. Start makes one; its methods may be called from any goroutine.
type Proxy struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup
	requests atomic.Int64 // how much later what the client sends arrives, in nanoseconds
	replies  atomic.Int64 // likewise, what the server sends

	mu     sync.Mutex // guards the fields below
	links  map[*link]struct{}
	deaf   bool // new connections are deaf
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
// side still sends is swallowed, and the end of one side is not reported to the other. New connections work.
func (p *Proxy) Silence() int {
	return p.count(func(l *link) bool { return l.silent.CompareAndSwap(false, true) })
}

// DropReplies makes the connections that are open now deaf for good, and returns how many they are: what the client
// sends arrives, but whatever the server sends is swallowed. If newToo is set, so are connections made before Reset.
func (p *Proxy) DropReplies(newToo bool) int {
	p.mu.Lock()
	p.deaf = newToo
	p.mu.Unlock()
	return p.count(func(l *link) bool { return l.deaf.CompareAndSwap(false, true) })
}

// Reset closes all connections, which both sides notice, and ends DropReplies for new ones.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = false
	for l := range p.links {
		l.close()
	}
}

// SetDelay has everything that is sent from now on, in either direction, arrive that much later.
func (p *Proxy) SetDelay(d time.Duration) {
	p.requests.Store(int64(d))
	p.replies.Store(int64(d))
}

// SetReplyDelay has what the server sends from now on arrive that much later: the answers of a slow server. A new
// connection waits that long for its handshake too.
func (p *Proxy) SetReplyDelay(d time.Duration) { p.replies.Store(int64(d)) }

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
	l.deaf.Store(p.deaf)
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer p.forget(l)

	var both sync.WaitGroup
	both.Go(func() { l.carry(l.server, p.read(l.client, &p.requests), l.silent.Load) })
	both.Go(func() {
		l.carry(l.client, p.read(l.server, &p.replies), func() bool { return l.silent.Load() || l.deaf.Load() })
	})
	both.Wait()
}

func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// A chunk is what was read at once and when it is to arrive. Without data it is the end.
type chunk struct {
	data []byte
	due  time.Time
}

// read reads until the end, however slowly the chunks are taken.
func (p *Proxy) read(from *net.TCPConn, delay *atomic.Int64) <-chan chunk {
	chunks := make(chan chunk, 1<<10)
	p.running.Go(func() {
		defer close(chunks)
		for buf := make([]byte, 32<<10); ; {
			n, err := from.Read(buf)
			due := time.Now().Add(time.Duration(delay.Load()))
			if n > 0 {
				chunks <- chunk{bytes.Clone(buf[:n]), due}
			}
			if err != nil { // an error of a connection is its end
				chunks <- chunk{due: due}
				return
			}
		}
	})
	return chunks
}

// A link is one connection: the client's to the proxy and the proxy's to the server.
type link struct {
	client, server *net.TCPConn
	silent, deaf   atomic.Bool
}

// carry passes on the chunks when they are due, the end among them, unless they are to be swallowed. It takes them all
// in any case, so that the sender's machine gets its acknowledgements and sees nothing wrong.
func (l *link) carry(to *net.TCPConn, chunks <-chan chunk, swallow func() bool) {
	for c := range chunks {
		time.Sleep(time.Until(c.due))
		if swallow() {
			continue
		}
		if c.data == nil {
			_ = to.CloseWrite()
		} else if _, err := to.Write(c.data); err != nil {
			l.close()
		}
	}
}

func (l *link) close() {
	l.client.Close()
	l.server.Close()
}
