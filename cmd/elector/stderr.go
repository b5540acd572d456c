//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"
)

// A relay passes on what is written to standard error, in order, and never makes a writer wait: a pipe that nobody reads
// must not stop the election. It holds up to relaySize bytes. When they are full, it drops what comes until they have
// been written, and then says how many lines are missing.
type relay struct {
	input, output *os.File      // a pipe: where this process and plugins write, and where the relay reads
	done          chan struct{} // closed when all has been written, or has failed

	mu      sync.Mutex
	more    sync.Cond // signalled when one of these has changed
	held    []byte
	broken  bool // what is held ends within a line
	dropped int  // lines
	ended   bool
}

const relaySize = 1 << 20

// relayStderr puts a relay between os.Stderr and the descriptor. The program and the guard write to the descriptor
// itself.
func relayStderr() (*relay, error) {
	output, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r := newRelay(input, output, os.Stderr)
	os.Stderr = input
	log.SetOutput(input)
	return r, nil
}

func newRelay(input, output *os.File, to io.Writer) *relay {
	r := &relay{input: input, output: output, done: make(chan struct{})}
	r.more.L = &r.mu
	go r.take()
	go r.write(to)
	return r
}

func (r *relay) take() {
	buf := make([]byte, 64<<10) // the size of a pipe on Linux: what is in it is read at once
	for {
		n, err := r.output.Read(buf)
		r.hold(buf[:n], err != nil)
		if err != nil {
			return
		}
	}
}

func (r *relay) hold(b []byte, last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(b) == 0:
	case r.dropped > 0 || len(r.held)+len(b) > relaySize:
		r.dropped += max(1, bytes.Count(b, []byte("\n")))
	default:
		r.held = append(r.held, b...)
		r.broken = !bytes.HasSuffix(r.held, []byte("\n"))
	}
	r.ended = last
	r.more.Signal()
}

// write goes on when a write fails, as when the reader has gone: then the log is lost, and the work is not.
func (r *relay) write(to io.Writer) {
	defer close(r.done)
	for {
		b := r.next()
		if len(b) == 0 {
			return
		}
		_, _ = to.Write(b)
	}
}

// next waits for what is to be written next. It is empty when nothing more comes.
func (r *relay) next() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.held) == 0 && r.dropped == 0 && !r.ended {
		r.more.Wait()
	}
	b := r.held
	r.held = nil
	if len(b) == 0 && r.dropped > 0 {
		if r.broken {
			b = append(b, '\n')
		}
		b = fmt.Appendf(b, "elector: %d lines of the log are missing here: standard error took no more\n", r.dropped)
		r.dropped, r.broken = 0, false
	}
	return b
}

// close writes what is left. It gives up after a second.
func (r *relay) close() {
	_ = r.input.Close()
	_ = r.output.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // a process that a plugin left may have it open
	select {
	case <-r.done:
	case <-time.After(time.Second):
	}
}

// complain is for a process that is about to end, and must, whether its message can be written or not.
func complain(format string, args ...any) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fmt.Fprintf(os.Stderr, "elector: "+format+"\n", args...)
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}
