package leaderservice

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/elector-go/elector"
)

// A tenure is what this replica serves in one term: the requests under way, which end with it.
type tenure struct {
	term  elector.Term
	alive context.Context // ends when the requests have to
	end   context.CancelFunc

	mu       sync.Mutex // guards what follows; nothing is waited for under it
	closed   bool       // no more requests
	stopping bool       // the connections that were taken over are closed
	conns    map[net.Conn]struct{}
	requests sync.WaitGroup // grows under mu while not closed
}

// newTenure begins a tenure. Its requests end when the term is lost, at once. When ctx ends for another reason only the
// connections that were taken over do; the rest is close's.
func newTenure(ctx context.Context, term elector.Term) *tenure {
	t := &tenure{term: term, conns: map[net.Conn]struct{}{}}
	t.alive, t.end = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		if !term.Valid() {
			t.end()
		}
		t.hangUp()
	})
	return t
}

// close refuses new requests and returns when the others have ended: their contexts do after grace.
func (t *tenure) close(grace time.Duration) {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.hangUp()
	if grace > 0 {
		timer := time.AfterFunc(grace, t.end)
		defer timer.Stop()
	} else {
		t.end()
	}
	// While they finish, the term may be lost, which ctx does not say if it has ended already.
	watch := time.NewTicker(max(min(grace, 100*time.Millisecond)/2, time.Millisecond))
	defer watch.Stop()
	done := make(chan struct{})
	go func() { t.requests.Wait(); close(done) }()
	for {
		select {
		case <-done:
			t.end()
			return
		case <-watch.C:
			if !t.term.Valid() {
				t.end()
			}
		}
	}
}

// serve serves a request, with a ctx that ends with the tenure. It returns false if it is too late for that.
func (t *tenure) serve(w http.ResponseWriter, r *http.Request, local http.Handler) bool {
	t.mu.Lock()
	if t.closed || !t.term.Valid() {
		t.mu.Unlock()
		return false
	}
	t.requests.Add(1)
	t.mu.Unlock()
	defer t.requests.Done()

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(t.alive, cancel)()
	local.ServeHTTP(&responseWriter{w, t}, r.WithContext(ctx))
	return true
}

// hangUp closes the connections that were taken over.
func (t *tenure) hangUp() {
	t.mu.Lock()
	t.stopping = true
	conns := t.conns
	t.conns = nil
	t.mu.Unlock()
	for conn := range conns {
		_ = conn.Close() // it forgets itself, which nobody minds
	}
}

// adopt makes a connection that was taken over end with the tenure.
func (t *tenure) adopt(conn net.Conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping {
		return errors.New("leaderservice: the term is ending")
	}
	t.conns[conn] = struct{}{}
	return nil
}

func (t *tenure) forget(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, conn)
}
