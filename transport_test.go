package elector_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// A backend stands for an API server: it counts what reaches it.
type backend struct {
	reached atomic.Int32
	answer  func(req *http.Request) (*http.Response, error)
}

func (b *backend) RoundTrip(req *http.Request) (*http.Response, error) {
	b.reached.Add(1)
	return b.answer(req)
}

func ok(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("done"))}, nil
}

// hang answers when the request is cut off, and not before.
func hang(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

func request(ctx context.Context, method, path string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, "https://api"+path, strings.NewReader("{}"))
	if err != nil {
		panic(err)
	}
	return req
}

const configMaps = "/api/v1/namespaces/shop/configmaps/x"

func TestTheGateLetsReadsPassAndRefusesWritesWithoutATerm(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		w.pass(time.Second)
		leader, standby := a, b
		if w.leader() == b {
			leader, standby = b, a
		}
		for _, test := range []struct {
			method, path string
			read         bool
		}{
			{"", configMaps, true},
			{"GET", configMaps, true},
			{"GET", "/api/v1/pods?watch=1", true},
			{"HEAD", configMaps, true},
			{"OPTIONS", configMaps, true},
			{"GET", "/api/v1/namespaces/shop/pods/x/log", true},
			{"GET", "/api/v1/namespaces/shop/pods/x/exec", false},
			{"GET", "/api/v1/namespaces/shop/pods/x/portforward", false},
			{"POST", configMaps, false},
			{"PUT", configMaps, false},
			{"PATCH", configMaps, false},
			{"DELETE", configMaps, false},
			{"POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", true},
			{"POST", "/apis/authorization.k8s.io/v1/namespaces/shop/localsubjectaccessreviews", true},
			{"POST", "/k8s/clusters/c/apis/authentication.k8s.io/v1/tokenreviews", true},
			{"PUT", "/apis/authentication.k8s.io/v1/tokenreviews", false},
			{"POST", "/apis/shop.example.com/v1/namespaces/shop/reviews", false},
			{"POST", "/api/v1/namespaces/shop/serviceaccounts/x/token", false},
		} {
			api := &backend{answer: ok}
			_, err := leader.el.WrapTransport(api).RoundTrip(request(w.Context(), test.method, test.path))
			require.NoError(w, err, "the leader's %s %s", test.method, test.path)
			assert.EqualValues(w, 1, api.reached.Load())

			body := &closed{Reader: strings.NewReader("{}")}
			req := request(w.Context(), test.method, test.path)
			req.Body = body
			resp, err := standby.el.WrapTransport(api).RoundTrip(req)
			if test.read {
				require.NoError(w, err, "the standby's %s %s", test.method, test.path)
				assert.EqualValues(w, 2, api.reached.Load())
				continue
			}
			require.ErrorIs(w, err, elector.ErrNotLeader, "the standby's %s %s", test.method, test.path)
			assert.Nil(w, resp)
			assert.EqualValues(w, 1, api.reached.Load())
			assert.True(w, body.closed, "a RoundTripper closes the body whatever happens")
		}
	})
}

// usurp puts a stranger into the Lease.
func (w *world) usurp() {
	w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("stranger") })
}

type closed struct {
	io.Reader
	closed bool
}

func (c *closed) Close() error { c.closed = true; return nil }

func TestACallbackThatIgnoresItsContextCannotWriteAfterItsTerm(t *testing.T) {
	inWorld(t, func(w *world) {
		var gate http.RoundTripper
		var hangs atomic.Bool
		begin := make(chan struct{})
		var written int
		var cut, refused int
		a := w.join("a", with(func(o *elector.Options) { o.OnOverrun = func(elector.Term) {} }), working(func(context.Context) error {
			<-begin
			for end := time.Now().Add(14 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // whatever its ctx says
				switch resp, err := gate.RoundTrip(request(context.Background(), "PUT", configMaps)); {
				case err == nil:
					resp.Body.Close()
					written++
				case strings.Contains(err.Error(), "under way"):
					cut++
				default:
					assert.ErrorIs(w, err, elector.ErrNotLeader)
					refused++
				}
			}
			return nil
		}))
		gate = a.el.WrapTransport(&backend{answer: func(req *http.Request) (*http.Response, error) {
			if hangs.Load() {
				return hang(req)
			}
			return ok(req)
		}})
		w.pass(time.Minute)
		a.client.Partition(electortest.Both)
		close(begin)
		w.pass(5 * time.Second)
		require.True(w, a.el.IsLeader())
		require.Greater(w, written, 40)
		hangs.Store(true)
		w.pass(20 * time.Second)
		assert.Equal(w, 1, cut, "the write under way was cut off when the term ended")
		assert.Greater(w, refused, 30)
		assert.Less(w, written, 55)
	})
}

func TestAWriteThatIsCutOffSaysSo(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.pass(time.Second)
		begin := w.now()
		var ended time.Duration
		var err error
		go func() {
			_, err = a.el.WrapTransport(&backend{answer: hang}).RoundTrip(request(context.Background(), "POST", configMaps))
			ended = w.now()
		}()
		w.pass(time.Second)
		w.usurp()
		w.pass(time.Second)
		require.ErrorIs(w, err, elector.ErrNotLeader)
		assert.ErrorContains(w, err, "elector: POST: the term ended while it was under way, and it may have been carried out")
		assert.Less(w, ended-begin, 1100*time.Millisecond)
	})
}

func TestAnAnswerThatHasArrivedIsReadToItsEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.pass(time.Second)
		var ctx context.Context
		rest, more := io.Pipe()
		api := &backend{answer: func(req *http.Request) (*http.Response, error) {
			ctx = req.Context()
			return &http.Response{StatusCode: http.StatusCreated, Body: rest}, nil
		}}
		resp, err := a.el.WrapTransport(api).RoundTrip(request(context.Background(), "POST", configMaps))
		require.NoError(w, err)
		w.usurp()
		w.pass(time.Second)
		require.False(w, a.el.IsLeader())
		require.NoError(w, ctx.Err(), "the write has been carried out: its answer is no write")
		go func() { _, _ = more.Write([]byte("whole")); more.Close() }()
		body, err := io.ReadAll(resp.Body)
		require.NoError(w, err)
		assert.Equal(w, "whole", string(body))
		resp.Body.Close()
		synctest.Wait()
		assert.Error(w, ctx.Err(), "nothing is left behind")
	})
}

func TestAnUpgradedConnectionIsCutOffWhenTheTermEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.pass(time.Second)
		var ctx context.Context
		api := &backend{answer: func(req *http.Request) (*http.Response, error) {
			ctx = req.Context()
			return &http.Response{StatusCode: http.StatusSwitchingProtocols, Body: stream{}}, nil
		}}
		resp, err := a.el.WrapTransport(api).RoundTrip(request(context.Background(), "POST", "/api/v1/namespaces/shop/pods/x/exec"))
		require.NoError(w, err)
		_, writable := resp.Body.(io.Writer)
		assert.True(w, writable)
		require.NoError(w, ctx.Err())
		w.usurp()
		w.pass(time.Second)
		assert.Error(w, ctx.Err())
		resp.Body.Close()
	})
}

type stream struct{ io.ReadWriter }

func (stream) Close() error { return nil }

func TestWhatATermHasLeftBehindCannotWriteInTheNext(t *testing.T) {
	inWorld(t, func(w *world) {
		var first context.Context
		a := w.join("a", working(func(ctx context.Context) error {
			if first == nil {
				first = context.WithoutCancel(ctx)
			}
			<-ctx.Done()
			return nil
		}))
		w.pass(time.Second)
		gate := a.el.WrapTransport(&backend{answer: ok})
		_, err := gate.RoundTrip(request(first, "PUT", configMaps))
		require.NoError(w, err)
		require.NoError(w, a.el.StepDown(w.Context()))
		w.pass(time.Minute)
		require.True(w, a.el.IsLeader(), "in its second term")
		_, err = gate.RoundTrip(request(first, "PUT", configMaps))
		assert.ErrorIs(w, err, elector.ErrNotLeader)
		_, err = gate.RoundTrip(request(context.Background(), "PUT", configMaps))
		assert.NoError(w, err)

		other := w.api.Client("other")
		el, err := elector.New(other.CoordinationV1(), elector.Options{Namespace: namespace, Name: "another", Run: func(ctx context.Context) error {
			_, err := gate.RoundTrip(request(ctx, "PUT", configMaps))
			assert.NoError(w, err, "the term in ctx is another elector's: what counts is the gate's own")
			require.NoError(w, a.el.StepDown(ctx))
			_, err = gate.RoundTrip(request(ctx, "PUT", configMaps))
			assert.ErrorIs(w, err, elector.ErrNotLeader)
			return nil
		}})
		require.NoError(w, err)
		require.NoError(w, el.Run(w.Context()))
	})
}

func TestWritesOfADrainGoThroughTheGate(t *testing.T) {
	inWorld(t, func(w *world) {
		var gate http.RoundTripper
		a := w.join("a", working(func(ctx context.Context) error {
			<-ctx.Done()
			_, err := gate.RoundTrip(request(context.WithoutCancel(ctx), "PATCH", configMaps))
			assert.NoError(w, err, "the lease is kept while the callback drains")
			return nil
		}))
		gate = a.el.WrapTransport(&backend{answer: ok})
		w.pass(time.Second)
		a.stop()
		<-a.done
		_, err := gate.RoundTrip(request(w.Context(), "PATCH", configMaps))
		assert.ErrorIs(w, err, elector.ErrNotLeader)
	})
}

func TestTheGateOverHTTP(t *testing.T) {
	api := electortest.NewServer()
	defer api.Close()
	var writes atomic.Int32
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if writes.Add(1) == 2 {
			close(arrived)
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done() // the server notices that the client has gone
		}
	}))
	defer server.Close()
	leads := make(chan struct{})
	el, err := elector.New(api.Client("a").CoordinationV1(), elector.Options{
		Namespace: namespace, Name: name, Run: func(ctx context.Context) error { close(leads); <-ctx.Done(); return nil },
	})
	require.NoError(t, err)
	client := &http.Client{Transport: el.WrapTransport(http.DefaultTransport)}
	put := func() error {
		req, err := http.NewRequest(http.MethodPut, server.URL, strings.NewReader("{}"))
		require.NoError(t, err)
		resp, err := client.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return err
	}
	require.ErrorIs(t, put(), elector.ErrNotLeader)
	ended := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- el.Run(ctx) }()
	<-leads
	require.NoError(t, put())
	go func() { <-arrived; cancel() }()
	err = put()
	require.ErrorIs(t, err, elector.ErrNotLeader)
	require.NoError(t, <-ended)
	require.ErrorIs(t, put(), elector.ErrNotLeader)
	assert.EqualValues(t, 2, writes.Load())
}

func TestAWriteWithTheCallbacksContextThatIsCutOffSaysSo(t *testing.T) {
	inWorld(t, func(w *world) {
		var errs []error
		var gate http.RoundTripper
		made := make(chan struct{})
		a := w.join("a", working(func(ctx context.Context) error {
			<-made
			_, err := gate.RoundTrip(request(ctx, "PUT", configMaps))
			errs = append(errs, err)
			return nil
		}))
		gate = a.el.WrapTransport(&backend{answer: func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, context.Cause(req.Context()) // as http.Transport does
		}})
		close(made)
		w.pass(time.Second)
		for range 5 {
			w.usurp()
			w.pass(40 * time.Second)
		}
		assert.Len(w, errs, 5)
		for _, err := range errs {
			assert.ErrorIs(w, err, elector.ErrNotLeader)
			assert.ErrorContains(w, err, "may have been carried out")
		}
	})
}

func TestWhatAPastTermHasLeftBehindInsideAnotherElectionCannotWriteEither(t *testing.T) {
	inWorld(t, func(w *world) {
		var left context.Context
		a := w.join("a", working(func(ctx context.Context) error {
			if left != nil {
				<-ctx.Done()
				return nil
			}
			inner, err := elector.New(w.api.Client("inner").CoordinationV1(), elector.Options{Namespace: namespace, Name: "inner",
				Run: func(ctx context.Context) error { left = context.WithoutCancel(ctx); <-ctx.Done(); return nil }})
			require.NoError(w, err)
			return inner.Run(ctx)
		}))
		w.pass(time.Second)
		gate := a.el.WrapTransport(&backend{answer: ok})
		require.NoError(w, a.el.StepDown(w.Context()))
		w.pass(time.Minute)
		require.True(w, a.el.IsLeader())
		_, err := gate.RoundTrip(request(left, "PUT", configMaps))
		assert.ErrorIs(w, err, elector.ErrNotLeader)
	})
}

func TestAStreamOfUnknownLengthIsCutOffThoughItsAnswerHasBegun(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.pass(time.Second)
		var ctx context.Context
		gate := a.el.WrapTransport(&backend{answer: func(req *http.Request) (*http.Response, error) { ctx = req.Context(); return ok(req) }})
		req := request(context.Background(), "POST", configMaps)
		req.ContentLength = -1
		resp, err := gate.RoundTrip(req)
		require.NoError(w, err)
		w.usurp()
		w.pass(time.Second)
		assert.Error(w, ctx.Err())
		resp.Body.Close()
	})
}

func TestTheGateBearsNoBodyAndAPanic(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.pass(time.Second)
		client := &http.Client{Transport: a.el.WrapTransport(&backend{answer: func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK}, nil
		}})}
		resp, err := client.Do(request(w.Context(), "PUT", configMaps))
		require.NoError(w, err)
		_, err = io.ReadAll(resp.Body)
		assert.NoError(w, err)
		assert.NoError(w, resp.Body.Close())

		var ctx context.Context
		gate := a.el.WrapTransport(&backend{answer: func(req *http.Request) (*http.Response, error) { ctx = req.Context(); panic("no") }})
		assert.Panics(w, func() { _, _ = gate.RoundTrip(request(w.Context(), "PUT", configMaps)) })
		assert.Error(w, ctx.Err(), "nothing is left behind")
	})
}
