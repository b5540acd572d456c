package operator

import "github.com/go-logr/logr"

// quiet is a log without the error that each clean stop of a manager that elects would have in it: client-go's elector
// cannot end otherwise than by the loss that the manager reports then.
type quiet struct{ logr.LogSink }

// Error logs all but that.
func (q quiet) Error(err error, msg string, keysAndValues ...any) {
	if err != nil && err.Error() == "leader election lost" && msg == "error received after stop sequence was engaged" {
		return
	}
	sink := q.LogSink
	if s, ok := sink.(logr.CallDepthLogSink); ok {
		sink = s.WithCallDepth(1)
	}
	sink.Error(err, msg, keysAndValues...)
}

// WithValues is that of the sink inside.
func (q quiet) WithValues(keysAndValues ...any) logr.LogSink {
	return quiet{q.LogSink.WithValues(keysAndValues...)}
}

// WithName is that of the sink inside.
func (q quiet) WithName(name string) logr.LogSink { return quiet{q.LogSink.WithName(name)} }

// WithCallDepth is that of the sink inside.
func (q quiet) WithCallDepth(depth int) logr.LogSink {
	if s, ok := q.LogSink.(logr.CallDepthLogSink); ok {
		return quiet{s.WithCallDepth(depth)}
	}
	return q
}
