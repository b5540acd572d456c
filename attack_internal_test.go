package elector

import (
	"context"
	"errors"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/elector-go/elector/internal/protocol"
)

// slowLeases answers each GET, and sends it, as late as get says.
type slowLeases struct {
	coordinationv1client.LeaseInterface
	get func(ctx context.Context) error
}

func (l slowLeases) Get(ctx context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "1"}}, l.get(ctx)
}

func (slowLeases) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return nil, errors.New("no watch")
}

// The loop may have been held up, as by a suspension of the machine. Then a reply has come, and its time is up, and what has
// happened beside it is taken in first.
func TestAReplyWhoseTimeIsUpWhenItIsTakenInIsGivenUpInPeace(t *testing.T) {
	for name, err := range map[string]error{"answered": nil, "failed": errors.New("no route")} {
		synctest.Test(t, func(t *testing.T) {
			e := anElector(0)
			var calls atomic.Int32
			e.opts.Name, e.tells = "l", true
			e.leases = slowLeases{get: func(ctx context.Context) error {
				first := calls.Add(1) == 1
				if !first {
					time.Sleep(4 * time.Second) // for a connection
				}
				httptrace.ContextClientTrace(ctx).GotConn(httptrace.GotConnInfo{})
				if first {
					time.Sleep(10 * time.Second)
					return err
				}
				<-ctx.Done()
				return ctx.Err()
			}}
			c := newCandidate(e, t.Context(), false)
			defer c.close()
			c.step(t.Context(), protocol.Event{})
			for time.Sleep(time.Millisecond); calls.Load() < 2; time.Sleep(100 * time.Millisecond) {
				c.step(t.Context(), protocol.Event{})
			}
			time.Sleep(7 * time.Second)
			synctest.Wait()
			assert.NotPanics(t, func() {
				for len(c.requests.replies) > 0 {
					c.step(t.Context(), c.answered(<-c.requests.replies))
				}
			}, name)
		})
	}
}

// What the machine has suspended the gate must not let through, though the wall clock was set back in between (S2, S14).
func TestATermThatTheMachineHasSuspendedIsNotValid(t *testing.T) {
	e := anElector(time.Minute)
	e.opts.Name = "l"
	c := newCandidate(e, t.Context(), false)
	defer c.stop()
	c.active = serve(t.Context(), e, time.Second)
	c.carryOut(t.Context(), []protocol.Effect{{Kind: protocol.SuspendTerm}})
	assert.False(t, c.active.term.Valid())
	assert.False(t, c.active.term.Suspended().IsZero())
	c.active.renewed(now())
	require.True(t, c.active.term.Valid())
	c.active.lose(&LostError{Reason: ReasonDeadlinePassed})
}

// Renewals, suspensions and readers at once, for the race detector; whoever waits is let go.
func TestASuspendedTermAmongManyReaders(t *testing.T) {
	e := anElector(time.Minute)
	l := serve(t.Context(), e, 0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := l.term.Context(t.Context())
				if ctx.Err() == nil && l.term.Suspended().IsZero() {
					_ = l.term.ValidUntil()
				}
				cancel()
				_ = l.term.Await(t.Context())
			}
		})
	}
	for range 2000 {
		l.term.authority.Store(&authority{sent: now().Add(-11 * time.Second)})
		l.expire()
		l.renewed(now())
	}
	l.lose(&LostError{Reason: ReasonTakenOver})
	close(stop)
	wg.Wait()
	assert.ErrorIs(t, l.term.Await(t.Context()), ErrLost)
	l.close()
}
