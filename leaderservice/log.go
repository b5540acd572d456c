package leaderservice

import (
	"sync"

	"k8s.io/klog/v2"
)

// maxLines is how many lines wait for a log that blocks. What comes on top is dropped, and counted.
const maxLines = 100

// A logBeside writes to logs, in order. Nothing waits for them: a pipe may be full, and the leader must not keep the Lease
// for that. It has a goroutine only while there is something to write. The zero value is ready.
type logBeside struct {
	mu      sync.Mutex
	queue   []func()
	dropped int
	busy    bool
}

func (l *logBeside) write(log klog.Logger, line func(log klog.Logger)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) >= maxLines {
		l.dropped++
		return
	}
	if n := l.dropped; n > 0 {
		l.dropped = 0
		l.queue = append(l.queue, func() { log.Info("Lines of the log were dropped, because the log blocked", "dropped", n) })
	}
	l.queue = append(l.queue, func() { line(log) })
	if !l.busy {
		l.busy = true
		go l.drain()
	}
}

func (l *logBeside) drain() {
	for {
		l.mu.Lock()
		if len(l.queue) == 0 {
			l.busy = false
			l.mu.Unlock()
			return
		}
		next := l.queue[0]
		l.queue = l.queue[1:]
		l.mu.Unlock()
		next()
	}
}
