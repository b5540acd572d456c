package leaderservice

import (
	"k8s.io/klog/v2"

	"github.com/elector-go/elector/internal/beside"
)

// A logBeside writes to logs, in order. Nothing waits for them: a pipe may be full, and the leader must not keep the Lease
// for that. The zero value is ready.
type logBeside struct{ lines beside.Queue }

func (l *logBeside) write(log klog.Logger, line func(log klog.Logger)) {
	l.lines.Add(func() { line(log) }, func(n int) {
		log.Info("Lines of the log were dropped, because the log blocked", "dropped", n)
	})
}
