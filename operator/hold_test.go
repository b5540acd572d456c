package operator

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// suspended has f run by a candidate whose term is suspended, with the ctx of its callback.
func suspended(t *testing.T, f func(ctx context.Context, el *elector.Elector, link *electortest.Client)) {
	synctest.Test(t, func(t *testing.T) {
		api := electortest.NewServer()
		defer api.Close()
		link := api.Client("a")
		ctx, stop := context.WithCancel(t.Context())
		var el *elector.Elector
		el, err := elector.New(link.CoordinationV1(), elector.Options{
			Namespace: "shop", Name: "orders", RecoveryDeadline: time.Hour,
			Run: func(ctx context.Context) error {
				defer stop()
				link.Partition(electortest.Both)
				time.Sleep(time.Minute)
				f(ctx, el, link)
				link.Partition(electortest.NoPartition)
				return nil
			},
		})
		require.NoError(t, err)
		require.NoError(t, el.Run(ctx))
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestWritesWaitOutASuspension(t *testing.T) {
	suspended(t, func(ctx context.Context, el *elector.Elector, link *electortest.Client) {
		began, sent := time.Now(), 0
		h := &holding{el, el.WrapTransport(transport(func(*http.Request) (*http.Response, error) { sent++; return &http.Response{}, nil }))}
		send := func(ctx context.Context, method string) error {
			req, err := http.NewRequestWithContext(ctx, method, "https://api/api/v1/namespaces/shop/configmaps", nil)
			require.NoError(t, err)
			_, err = h.RoundTrip(req)
			return err
		}
		require.NoError(t, send(ctx, http.MethodGet))
		assert.Equal(t, began, time.Now(), "a read does not wait")

		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		assert.ErrorIs(t, send(short, http.MethodPost), elector.ErrSuspended)
		assert.Equal(t, 1, sent, "the gate has the last word")

		time.AfterFunc(time.Minute, func() { link.Partition(electortest.NoPartition) })
		require.NoError(t, send(context.Background(), http.MethodPost))
		assert.Equal(t, 2, sent)
		assert.InDelta(t, time.Minute, time.Since(began)-time.Second, float64(4*time.Second))
		require.True(t, el.IsLeader())
	})
}

func TestReconciliationsWaitOutASuspension(t *testing.T) {
	suspended(t, func(ctx context.Context, el *elector.Elector, link *electortest.Client) {
		calls, err := 0, error(nil)
		r := untilEnd{reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
			assert.True(t, el.IsLeader(), "it begins with a valid term")
			if calls++; calls == 2 {
				link.Partition(electortest.Both)
				time.Sleep(20 * time.Second)
				time.AfterFunc(time.Minute, func() { link.Partition(electortest.NoPartition) })
				return reconcile.Result{}, errors.New("the API is away")
			}
			return reconcile.Result{}, err
		})}
		time.AfterFunc(time.Minute, func() { link.Partition(electortest.NoPartition) })
		result, got := r.Reconcile(ctx, reconcile.Request{})
		require.NoError(t, got)
		assert.Zero(t, result)
		result, got = r.Reconcile(ctx, reconcile.Request{})
		require.NoError(t, got, "no back-off")
		assert.NotZero(t, result.RequeueAfter)
		assert.True(t, el.IsLeader(), "and not before the term is valid")
		err = errors.New("its own failure")
		_, got = r.Reconcile(ctx, reconcile.Request{})
		assert.Equal(t, err, got, "that is not the suspension's")
	})
}

func TestATermThatIsLostWhileSuspendedLeavesItsRequestsToTheNextLeader(t *testing.T) {
	suspended(t, func(ctx context.Context, el *elector.Elector, _ *electortest.Client) {
		calls := 0
		r := untilEnd{reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
			calls++
			return reconcile.Result{}, nil
		})}
		result, err := r.Reconcile(ctx, reconcile.Request{}) // until RecoveryDeadline has passed
		require.NoError(t, err)
		assert.Zero(t, result)
		assert.Zero(t, calls)
		assert.ErrorIs(t, context.Cause(ctx), elector.ErrLost)
	})
}
