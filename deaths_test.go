package elector

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

// S13, as far as it is about notes: what is left, what is read, and when. What a proof permits is the protocol's.

// A morgue plays those who see processes die.
type morgue struct {
	mu      sync.Mutex
	left    map[types.NamespacedName]string
	known   map[string][]string // by holder
	changed chan struct{}
	broken  error         // Watch reads once, and returns this
	calls   []time.Time   // of Watch
	hang    chan struct{} // Leave waits for it
}

func newMorgue() *morgue {
	return &morgue{left: map[types.NamespacedName]string{}, known: map[string][]string{}, changed: make(chan struct{})}
}

func (m *morgue) Leave(lease types.NamespacedName, note string) error {
	if m.hang != nil {
		<-m.hang
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left[lease] = note
	return m.broken
}

// asked is how often Watch was called.
func (m *morgue) asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.calls)
}

func (m *morgue) Watch(ctx context.Context, holder string, ended func([]string)) error {
	m.mu.Lock()
	m.calls = append(m.calls, time.Now())
	m.mu.Unlock()
	for {
		m.mu.Lock()
		notes, changed, broken := slices.Clone(m.known[holder]), m.changed, m.broken
		m.mu.Unlock()
		ended(notes)
		if broken != nil {
			return broken
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// publish is what a kubelet does when a container has ended.
func (m *morgue) publish(holder string, notes ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[holder] = notes
	close(m.changed)
	m.changed = make(chan struct{})
}

var orders = types.NamespacedName{Namespace: "shop", Name: "orders"}

func termOf(holder string, n int) mark {
	return mark{holder, time.UnixMicro(1e15 + int64(n)).UTC()}
}

// follows plays a candidate beside a morgue, and ends what it has begun.
func follows(t *testing.T, f func(m *morgue, d *deaths, log *[]string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMorgue()
		var lines []string
		log := logr.New(funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}).GetSink())
		d := newDeaths(t.Context(), logBeside{log, &callQueue{}}, m, orders)
		f(m, d, &lines)
		d.stop()
		synctest.Wait()
	})
}

// result is a term that was proven over, the zero value for none.
func result(d *deaths) mark {
	synctest.Wait()
	select {
	case m := <-d.results():
		return m
	default:
		return mark{}
	}
}

func heldFor(m mark, late, expires time.Duration) heldTerm {
	return heldTerm{m, time.Now().Add(late), time.Now().Add(expires)}
}

func TestANoteProvesJustTheTermsThatItNames(t *testing.T) {
	term := termOf("a_1", 7)
	note := noteOf(orders, []mark{termOf("a_1", 3), term})
	for what, c := range map[string]struct {
		notes []string
		proof bool
	}{
		"its own":                        {[]string{note}, true},
		"in a longer text":               {[]string{"x", "panic: y\n" + note + "\nz"}, true},
		"none":                           {nil, false},
		"cut off":                        {[]string{note[:len(note)-1]}, false},
		"cut off at the front":           {[]string{note[len(note)-21:]}, false},
		"an earlier term of the process": {[]string{noteOf(orders, []mark{termOf("a_1", 3)})}, false},
		"a namesake's term":              {[]string{noteOf(orders, []mark{termOf("a_1", 8)})}, false},
		"another holder of the pod":      {[]string{noteOf(orders, []mark{termOf("a_2", 7)})}, false},
		"of another Lease":               {[]string{noteOf(types.NamespacedName{Namespace: "shop", Name: "o"}, []mark{term})}, false},
	} {
		follows(t, func(m *morgue, d *deaths, _ *[]string) {
			d.follow(heldFor(term, 3*time.Second, 15*time.Second))
			require.Zero(t, result(d))
			m.publish("a_1", c.notes...)
			if got := result(d); c.proof {
				require.Equal(t, term, got, what)
			} else {
				require.Zero(t, got, what)
			}
			m.publish("a_1", append(c.notes, "more")...)
			require.Zero(t, result(d), "told once: %s", what)
		})
	}
}

func TestARecordWithoutAcquireTimeIsNotProven(t *testing.T) {
	for _, at := range []time.Time{{}, time.UnixMicro(0)} {
		follows(t, func(m *morgue, d *deaths, _ *[]string) {
			term := mark{"a", at}
			m.publish("a", noteOf(orders, []mark{term}))
			d.follow(heldFor(term, time.Second, time.Minute))
			require.Zero(t, result(d))
		})
	}
}

// The pod's status and the Lease come by two watches.
func TestTheNoteMayComeBeforeTheRecord(t *testing.T) {
	follows(t, func(m *morgue, d *deaths, _ *[]string) {
		d.follow(heldFor(termOf("a", 1), 3*time.Second, 15*time.Second))
		m.publish("a", noteOf(orders, []mark{termOf("a", 2)}))
		require.Zero(t, result(d))
		d.follow(heldFor(termOf("a", 2), 3*time.Second, 15*time.Second))
		require.Equal(t, termOf("a", 2), result(d))
	})
}

func TestOnlyThePresentHolderIsWatched(t *testing.T) {
	follows(t, func(m *morgue, d *deaths, _ *[]string) {
		d.follow(heldFor(termOf("a", 1), 3*time.Second, 15*time.Second))
		synctest.Wait()
		d.follow(heldTerm{})
		m.publish("a", noteOf(orders, []mark{termOf("a", 1)}))
		require.Zero(t, result(d))
		d.follow(heldFor(termOf("b", 2), 3*time.Second, 15*time.Second))
		require.Zero(t, result(d))
		d.follow(heldFor(termOf("a", 1), 3*time.Second, 15*time.Second))
		require.Equal(t, termOf("a", 1), result(d), "once more, of the same holder")
	})
}

// With the right to get pods alone, a standby asks when a renewal is late.
func TestWhoCannotWatchAsksOnceARenewalIsLate(t *testing.T) {
	follows(t, func(m *morgue, d *deaths, log *[]string) {
		m.broken = errors.New("forbidden")
		term := termOf("a", 1)
		for range 61 { // renewals in time
			d.follow(heldFor(term, 2500*time.Millisecond, 15*time.Second))
			time.Sleep(2 * time.Second)
		}
		require.Equal(t, 3, m.asked(), "at once, and each minute")
		for range 12 {
			time.Sleep(time.Second)
		}
		require.InDelta(t, 3+11, m.asked(), 1, "each second")
		m.publish("a", noteOf(orders, []mark{term}))
		time.Sleep(time.Second)
		require.Equal(t, term, result(d))
		time.Sleep(time.Minute)
		require.InDelta(t, 3+13+1, m.asked(), 2, "the Lease has expired: there is nothing to find out")
		require.Len(t, *log, 1)
		assert.Contains(t, (*log)[0], "forbidden")
	})
}

func TestANoteNamesTheWritesThatMayWinAndThenTheTerm(t *testing.T) {
	follows(t, func(m *morgue, d *deaths, _ *[]string) {
		var last []mark
		for i := range 6 {
			d.record(termOf("me", i))
			d.record(termOf("me", i)) // repeated
			last = append(last, termOf("me", i))
			require.Equal(t, noteOf(orders, last[max(0, len(last)-maxNoted):]), m.left[orders], "before the write is sent")
		}
		d.won()
		require.Equal(t, noteOf(orders, last[5:]), m.left[orders])
	})
}

// A note that cannot be left costs the proof, and a disk that hangs must not stop the election.
func TestALeaveThatHangsOrFailsIsNotWaitedFor(t *testing.T) {
	follows(t, func(m *morgue, d *deaths, log *[]string) {
		m.hang, m.broken = make(chan struct{}), errors.New("no termination log")
		begin := time.Now()
		for i := range 10 {
			d.record(termOf("me", i))
		}
		require.Equal(t, 10*leaveLimit, time.Since(begin))
		close(m.hang)
		synctest.Wait()
		require.Contains(t, m.left[orders], noteOf(orders, []mark{termOf("me", 9)}), "the last one, when it can be")
		require.Len(t, *log, 1)
	})
}

func TestWithoutDeathsThereIsNothingToDo(t *testing.T) {
	d := newDeaths(t.Context(), logBeside{logr.Discard(), &callQueue{}}, nil, orders)
	d.record(termOf("a", 1))
	d.won()
	d.follow(heldFor(termOf("a", 1), 0, 0))
	require.Nil(t, d.results())
	d.stop()
}
