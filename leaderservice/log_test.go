package leaderservice

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/internal/beside"
)

// logLines are the lines that a replica has logged.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) add(prefix, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, prefix+args)
}

func (l *logLines) all() string {
	synctest.Wait() // they are written beside
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func (l *logLines) count(part string) int { return strings.Count(l.all(), part) }

// blocking is a log that blocks until it is opened.
func (l *logLines) blocking() (log logr.Logger, open func()) {
	opened := make(chan struct{})
	return funcr.New(func(prefix, args string) { <-opened; l.add(prefix, args) }, funcr.Options{}), func() { close(opened) }
}

func TestTheLeaseIsReleasedThoughTheLogBlocks(t *testing.T) {
	inShop(t, func(s *shop) {
		log, open := (&logLines{}).blocking()
		defer open()
		r := s.join(untilDone)
		r.stop()
		<-r.done
		run := r.service.Run(untilDone)
		el, err := elector.New(r.leases.CoordinationV1(), elector.Options{
			Namespace: "shop", Name: "orders", Identity: "blocked",
			Run: func(ctx context.Context) error { return run(logr.NewContext(ctx, log)) },
		})
		require.NoError(s, err)
		ctx, stop := context.WithCancel(s.Context())
		ended := make(chan error)
		go func() { ended <- el.Run(ctx) }()
		time.Sleep(time.Second)
		require.Equal(s, r.address, s.slices.leads())
		s.slices.edit(nil) // it has to be put right, which is logged, too
		time.Sleep(checkInterval + time.Second)
		require.Equal(s, r.address, s.slices.leads())
		begin := time.Now()
		stop()
		require.NoError(s, <-ended)
		require.Less(s, time.Since(begin), 100*time.Millisecond)
		require.Empty(s, s.slices.leads())
		require.Empty(s, s.holder())
	})
}

func TestARequestEndsThoughTheLogBlocks(t *testing.T) {
	inNetwork(t, func(n *network) {
		s := n.standby("10.0.0.2")
		s.leads("pod-1", "10.0.0.1")
		log, open := (&logLines{}).blocking()
		defer open()
		ctx, cancel := context.WithTimeout(logr.NewContext(n.Context(), log), time.Minute)
		defer cancel()
		begin, w := time.Now(), httptest.NewRecorder()
		s.forward.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		require.Equal(n, http.StatusServiceUnavailable, w.Code)
		require.Equal(n, defaultWait, time.Since(begin))
	})
}

func TestLinesBehindOneThatBlocksAreKeptUpToALimitAndTheRestIsCounted(t *testing.T) {
	inNetwork(t, func(n *network) {
		var l logBeside
		lines := &logLines{}
		log, open := lines.blocking()
		say := func() { l.write(log, func(log logr.Logger) { log.Info("said") }) }
		for range 3 * beside.Limit {
			say()
		}
		open()
		time.Sleep(time.Second)
		say()
		time.Sleep(time.Second)
		kept := lines.count("said")
		require.InDelta(n, beside.Limit, kept-1, 1)
		require.Contains(n, lines.all(), fmt.Sprintf(`"dropped"=%d`, 3*beside.Limit+1-kept))
	})
}

// What is remembered of the log must not grow with each leader there has been.
func TestALineIsWrittenOnceAMinuteWhoeverLeads(t *testing.T) {
	inNetwork(t, func(n *network) {
		f, lines := n.standby("10.0.0.2").forward.(*forwarder), &logLines{}
		log := funcr.New(lines.add, funcr.Options{})
		for i := range 120 {
			r := httptest.NewRequestWithContext(logr.NewContext(n.Context(), log), http.MethodGet, "/", nil)
			f.refuse(httptest.NewRecorder(), r, &trouble{log: notReached, answer: fmt.Sprintf("the leader, pod-%d, cannot be reached", i)})
			time.Sleep(time.Second)
		}
		require.Equal(n, 2, lines.count("cannot be reached"))
		kept := 0
		f.said.Range(func(any, any) bool { kept++; return true })
		require.Equal(n, 1, kept)
	})
}
