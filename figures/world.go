package figures

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

const (
	namespace = "shop"
	name      = "order-controller"
	replicas  = 3
	roundTrip = 4 * time.Millisecond
)

// A kind is one of the electors compared.
type kind string

const (
	clientGo kind = "client-go"
	ours     kind = "Elector"
)

// A world is an API server and the replicas that compete for a Lease in it, inside a bubble of virtual time.
type world struct {
	kind      kind
	drain     time.Duration // how long a callback takes to return once its ctx has ended
	api       *electortest.Server
	processes []*process

	mu    sync.Mutex // guards the record
	start time.Time
	record
}

func newWorld(k kind, drain time.Duration) *world {
	return &world{kind: k, drain: drain, api: electortest.NewServer(), start: time.Now()}
}

// close ends every process, so that the bubble can end.
func (w *world) close() {
	w.api.Close()
	for _, p := range w.processes {
		p.stop()
	}
	for _, p := range w.processes {
		<-p.exited
	}
}

// now is the time in this world. The caller holds mu.
func (w *world) now() time.Duration { return time.Since(w.start) }

// mark notes an event that the script brings about.
func (w *world) mark(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, event{w.now(), what})
}

// A process is one life of a replica. A replica that starts again is a new one in the same lane.
type process struct {
	*world
	lane     int
	identity string
	client   *electortest.Client
	stop     context.CancelFunc // SIGTERM
	exited   chan struct{}
	life     *span
	term     *term // being served, nil for none
	killed   bool
}

// join starts a process.
func (w *world) join(lane int) *process {
	ctx, stop := context.WithCancel(logr.NewContext(context.Background(), logr.Discard()))
	p := &process{world: w, lane: lane, stop: stop, exited: make(chan struct{})}
	p.identity = fmt.Sprintf("%s-%d", laneName(lane), len(w.processes))
	p.client = w.api.Client(p.identity)
	p.client.SetLatency(roundTrip)
	w.processes = append(w.processes, p)
	p.started()
	go func() {
		defer close(p.exited)
		defer p.ended()
		p.campaign(ctx)
	}()
	return p
}

func (p *process) campaign(ctx context.Context) {
	if p.kind == ours {
		p.runElector(ctx)
		return
	}
	for ctx.Err() == nil { // one that has lost the Lease starts anew
		p.runClientGo(ctx)
	}
}

func (p *process) runElector(ctx context.Context) {
	el, err := elector.New(p.client.CoordinationV1(), elector.Options{
		Namespace: namespace, Name: name, Identity: p.identity,
		Run: func(ctx context.Context) error { p.work(ctx); return nil },
	})
	if err != nil {
		panic(err)
	}
	_ = el.Run(ctx)
}

// runClientGo is one campaign and one term, set up as most operators do, with the time-out for requests that
// resourcelock.NewFromKubeconfig sets: without it everything that hangs would hang twice as long. Client-go starts the callback and forgets it,
// so the process waits on its own until it is done.
func (p *process) runClientGo(ctx context.Context) {
	var working sync.WaitGroup
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name},
			Client:     impatient{p.client.CoordinationV1()},
			LockConfig: resourcelock.ResourceLockConfig{Identity: p.identity},
		},
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				working.Add(1)
				defer working.Done()
				p.work(ctx)
			},
			OnStoppedLeading: func() {},
		},
	})
	working.Wait()
}

// work is the callback: it works until its ctx ends, and then takes its time.
func (p *process) work(ctx context.Context) {
	p.enter()
	<-ctx.Done()
	p.told()
	time.Sleep(p.drain)
	p.leave()
}

// kill is SIGKILL: nothing of the process is heard of any more.
func (p *process) kill() {
	p.client.Partition(electortest.Both)
	p.leave()
	p.ended()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
}

// renewing returns a channel that is closed as the process sends its next write, which meets the first fault. All that
// it sends from then on meets the second.
func (p *process) renewing(renewal, after electortest.Fault) <-chan struct{} {
	sent := make(chan struct{})
	var mu sync.Mutex // a watch may be opened during the write
	p.client.Intercept(func(r electortest.Request) electortest.Fault {
		mu.Lock()
		defer mu.Unlock()
		select {
		case <-sent:
			return after
		default:
		}
		if r.Verb != "update" {
			return electortest.Fault{}
		}
		close(sent)
		return renewal
	})
	return sent
}

func (p *process) started() {
	p.note(func(now time.Duration) {
		p.life = &span{lane: p.lane, begin: now, end: never}
		p.lives = append(p.lives, p.life)
	})
}

func (p *process) ended() {
	p.note(func(now time.Duration) { p.life.end = now })
}

func (p *process) enter() {
	p.note(func(now time.Duration) {
		p.term = &term{span: span{lane: p.lane, begin: now, end: never}, told: never}
		p.terms = append(p.terms, p.term)
	})
}

func (p *process) told() {
	p.note(func(now time.Duration) { p.term.told = now })
}

func (p *process) leave() {
	p.note(func(now time.Duration) { p.term.end, p.term.told = now, min(now, p.term.told) })
}

// note writes to the record, unless the process is dead: it runs on in the bubble, but nobody can see it.
func (p *process) note(write func(now time.Duration)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.killed {
		write(p.now())
	}
}
