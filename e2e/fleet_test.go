package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector/e2e/cluster"
	"github.com/elector-go/elector/e2e/internal/event"
	"github.com/elector-go/elector/e2e/internal/process"
)

const leaseName = "controller"

// electorKind is a value of the replica's -elector flag.
type electorKind string

const (
	ours     electorKind = "elector"
	clientGo electorKind = "client-go"
)

var fleets atomic.Int64

// A fleet is the replicas that share one Lease, in a namespace of their own, and what they have reported.
type fleet struct {
	t         *testing.T
	namespace string
	dir       string

	mu       sync.Mutex    // guards the fields below
	changed  chan struct{} // closed and replaced at each event
	events   []event.Event
	replicas []*replica
	taken    int // Begin events that nextLeader has returned
}

// A replica is one process.
type replica struct {
	id   string
	kind electorKind
	proc *process.Process
	log  *lockedBuffer
}

// repeat runs test n times, side by side.
func repeat(t *testing.T, n int, test func(*testing.T)) {
	for i := range n {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// readmeRole is the Role that the README asks for.
var readmeRole = []rbacv1.PolicyRule{
	cluster.LeaseRule(nil, "create"),
	cluster.LeaseRule([]string{leaseName}, "get", "update", "watch"),
}

// newFleet makes a fleet without replicas, whose user may do what the README asks for and no more.
func newFleet(t *testing.T) *fleet {
	f := newFleetWithout(t)
	require.NoError(t, shared.cluster.Grant(t.Context(), operator, f.namespace, readmeRole...))
	return f
}

// newFleetWithout makes a fleet without replicas and without grants.
func newFleetWithout(t *testing.T) *fleet {
	f := &fleet{
		t:         t,
		namespace: fmt.Sprintf("fleet-%d", fleets.Add(1)),
		dir:       t.TempDir(),
		changed:   make(chan struct{}),
	}
	require.NoError(t, shared.cluster.CreateNamespace(t.Context(), f.namespace))
	t.Cleanup(f.end)
	return f
}

// end kills what is left and, after a failure, shows what the replicas have said.
func (f *fleet) end() {
	for _, r := range f.replicas {
		_ = r.proc.Signal(os.Kill)
		<-r.proc.Done()
	}
	if !f.t.Failed() {
		return
	}
	for _, e := range f.events {
		if e.Kind != event.Requests {
			f.t.Logf("%s %s %s %+v", e.At.Format("15:04:05.000000"), e.Replica, e.Kind, e)
		}
	}
	for _, r := range f.replicas {
		f.t.Logf("log of %s:\n%s", r.id, r.log.String())
	}
}

// start adds a replica that acts as the operator user.
func (f *fleet) start(kind electorKind, flags ...string) *replica {
	return f.startAs(operator, kind, flags...)
}

func (f *fleet) startAs(user string, kind electorKind, flags ...string) *replica {
	f.t.Helper()
	return f.startWith(shared.cluster.UserConfig(user), kind, flags...)
}

func (f *fleet) startWith(cfg *rest.Config, kind electorKind, flags ...string) *replica {
	f.t.Helper()
	f.mu.Lock()
	id := fmt.Sprintf("%s-%d", kind, len(f.replicas)+1)
	f.mu.Unlock()
	kubeconfig := filepath.Join(f.dir, id)
	require.NoError(f.t, cluster.WriteKubeconfig(kubeconfig, cfg))
	args := []string{
		"-kubeconfig=" + kubeconfig, "-namespace=" + f.namespace, "-lease=" + leaseName,
		"-id=" + id, "-elector=" + string(kind),
	}
	r := &replica{id: id, kind: kind, log: &lockedBuffer{}}
	cmd := exec.Command(shared.replica, append(args, flags...)...)
	cmd.Stdout, cmd.Stderr = &lines{each: f.record}, r.log
	var err error
	r.proc, err = process.Start(cmd)
	require.NoError(f.t, err)
	f.mu.Lock()
	f.replicas = append(f.replicas, r)
	f.mu.Unlock()
	return r
}

func (f *fleet) record(line []byte) {
	e, err := event.Parse(line)
	if err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
	close(f.changed)
	f.changed = make(chan struct{})
}

// await returns the result of find as soon as it has one; find is called with all the events so far.
func (f *fleet) await(what string, limit time.Duration, find func([]event.Event) *event.Event) event.Event {
	f.t.Helper()
	timeout := time.After(limit)
	for {
		f.mu.Lock()
		found, changed := find(f.events), f.changed
		f.mu.Unlock()
		if found != nil {
			return *found
		}
		select {
		case <-changed:
		case <-timeout:
			require.FailNow(f.t, "timed out", "%s: not within %v", what, limit)
		}
	}
}

// awaitFrom waits for an event of one replica, of one kind.
func (f *fleet) awaitFrom(r *replica, kind event.Kind, limit time.Duration) event.Event {
	f.t.Helper()
	return f.await(fmt.Sprintf("%s from %s", kind, r.id), limit, func(events []event.Event) *event.Event {
		return find(events, func(e event.Event) bool { return e.Replica == r.id && e.Kind == kind })
	})
}

// nextLeader waits for the first Begin event that it has not returned before, and returns it with its replica.
func (f *fleet) nextLeader(limit time.Duration) (*replica, event.Event) {
	f.t.Helper()
	n := 0
	begin := f.await("next leader", limit, func(events []event.Event) *event.Event {
		n = 0
		return find(events, func(e event.Event) bool {
			if e.Kind == event.Begin {
				n++
			}
			return n > f.taken
		})
	})
	f.taken = n
	return f.named(begin.Replica), begin
}

func (f *fleet) named(id string) *replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replicas[slices.IndexFunc(f.replicas, func(r *replica) bool { return r.id == id })]
}

// settle waits until every standby has seen that leader leads.
func (f *fleet) settle(leader *replica, standbys ...*replica) {
	f.t.Helper()
	for _, r := range standbys {
		f.await(fmt.Sprintf("%s sees that %s leads", r.id, leader.id), 20*time.Second, func(events []event.Event) *event.Event {
			last := findLast(events, func(e event.Event) bool { return e.Replica == r.id && e.Kind == event.Leader })
			if last == nil || last.Leader != leader.id {
				return nil
			}
			return last
		})
	}
}

// signal sends sig and returns the time just before.
func (f *fleet) signal(r *replica, sig os.Signal) time.Time {
	f.t.Helper()
	now := time.Now()
	require.NoError(f.t, r.proc.Signal(sig))
	return now
}

// exits waits for the replica to end by itself, with exit code 0.
func (f *fleet) exits(r *replica, limit time.Duration) {
	f.t.Helper()
	select {
	case <-r.proc.Done():
		_, err := r.proc.Result()
		require.NoError(f.t, err, "exit of %s", r.id)
	case <-time.After(limit):
		require.FailNow(f.t, "timed out", "%s has not ended within %v", r.id, limit)
	}
}

func find(events []event.Event, is func(event.Event) bool) *event.Event {
	if i := slices.IndexFunc(events, is); i >= 0 {
		return &events[i]
	}
	return nil
}

func findLast(events []event.Event, is func(event.Event) bool) *event.Event {
	for _, e := range slices.Backward(events) {
		if is(e) {
			return &e
		}
	}
	return nil
}

// lines is a writer that calls each with every whole line.
type lines struct {
	each func([]byte)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.each(line)
		l.rest = rest
	}
}

// lockedBuffer is a buffer that can be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
