// Package beside makes calls to what is the user's, such as a log, beside those that must not wait for it (L13).
package beside

import (
	"sync"
	"time"
)

// Limit is how many calls wait for one that does not return. What comes on top is dropped, and counted.
const Limit = 1000

// A Queue makes calls, in order and one at a time. It has a goroutine only while there is something to call. The zero value
// is ready.
type Queue struct {
	mu      sync.Mutex // guards what follows
	calls   []func()
	lost    int         // calls dropped since the last report
	report  func(n int) // of them
	busy    bool        // there is a goroutine
	running sync.WaitGroup
}

// Add has call called after those before it. If there is no room, dropped is called in its place once there is, with the number
// of calls that were dropped; nil is for nobody.
func (q *Queue) Add(call func(), dropped func(n int)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.calls) >= Limit {
		q.lost++
		q.report = dropped
		return
	}
	q.calls = append(q.calls, call)
	if !q.busy {
		q.busy = true
		q.running.Go(q.drain)
	}
}

func (q *Queue) drain() {
	done := false
	defer func() {
		if !done {
			q.running.Go(q.drain) // a call has ended its goroutine, as the Fatal of a test does
		}
	}()
	for call := q.next(); call != nil; call = q.next() {
		call()
	}
	done = true
}

// next takes the next call, or the report of those that were dropped after it. It returns nil when there is nothing left.
func (q *Queue) next() (call func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.calls) > 0 {
		call, q.calls = q.calls[0], q.calls[1:]
		return call
	}
	if n, report := q.lost, q.report; report != nil {
		q.lost, q.report = 0, nil
		return func() { report(n) }
	}
	q.lost, q.busy = 0, false
	return nil
}

// Wait waits until all calls have returned, for limit at most; zero is no limit.
func (q *Queue) Wait(limit time.Duration) {
	if limit == 0 {
		q.running.Wait()
		return
	}
	done := make(chan struct{})
	go func() {
		q.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}
