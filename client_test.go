package elector_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/leaderelection"
)

// L5 and NewClient: what lies between an Elector and the server's HTTP.

// A counted server counts its connections, and those that are open.
type counted struct {
	*httptest.Server
	made, open atomic.Int32
}

func serveCounted(t *testing.T, h http.Handler) *counted {
	c := &counted{Server: httptest.NewUnstartedServer(h)}
	c.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			c.made.Add(1)
			c.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			c.open.Add(-1)
		}
	}
	c.EnableHTTP2 = true
	c.StartTLS()
	t.Cleanup(c.Close)
	return c
}

func (c *counted) config() *rest.Config {
	return &rest.Config{Host: c.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

// outcomes keeps the errors of requests.
type outcomes struct {
	elector.NoMetrics
	mu   sync.Mutex
	errs []error
}

func (o *outcomes) Request(_ types.NamespacedName, _ string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.errs = append(o.errs, err)
}

func TestARefusalWithRetryAfterIsNamedAsWhatItIsAndKeepsItsConnection(t *testing.T) {
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		server := serveCounted(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(code)
		}))
		seen := &outcomes{}
		e, err := elector.NewForConfig(server.config(), elector.Options{
			Namespace: namespace, Name: name, Metrics: seen, RetryPeriod: 100 * time.Millisecond,
			Run: func(context.Context) error { return nil },
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.Run(ctx) }()
		time.Sleep(3 * time.Second)
		seen.mu.Lock()
		errs := slices.Clone(seen.errs) // without what the end of Run cuts off
		seen.mu.Unlock()
		cancel()
		require.NoError(t, <-ended)
		require.NotEmpty(t, errs)
		for _, err := range errs {
			var status apierrors.APIStatus
			require.ErrorAs(t, err, &status)
			assert.Equal(t, int32(code), status.Status().Code)
		}
		assert.LessOrEqual(t, len(errs), 12, "it waits as it was asked to")
		assert.LessOrEqual(t, server.made.Load(), int32(3), "the first request and the watch dial at once; where dialing takes long, so does a second attempt")
	}
}

// warnings handles none until it is opened.
type warnings struct {
	opened chan struct{}
	got    chan string
}

func (w warnings) HandleWarningHeader(_ int, _ string, text string) {
	<-w.opened
	w.got <- text
}

func TestNoRequestWaitsForAWarningToBeHandled(t *testing.T) {
	api := electortest.NewServer()
	defer api.Close()
	server := serveCounted(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Warning", `299 - "a policy says so"`)
		serveLeases(api).ServeHTTP(w, r)
	}))
	handler := warnings{make(chan struct{}), make(chan string)}
	cfg := server.config()
	cfg.WarningHandler = handler
	client, err := elector.NewClient(cfg)
	require.NoError(t, err)
	answered := make(chan error)
	go func() {
		_, err := client.Leases(namespace).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: objectMeta(name)}, metav1.CreateOptions{})
		answered <- err
	}()
	select {
	case err := <-answered:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the request waits")
	}
	close(handler.opened)
	require.Equal(t, "a policy says so", <-handler.got)
}

// Client-go up to v0.33 does not read what the API says to a watch that it refuses: "unknown" is all that it tells.
func TestARefusedRightIsNamedWhateverClientGoMakesOfTheAnswer(t *testing.T) {
	server := serveCounted(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
			"message": "leases.coordination.k8s.io \"x\" is forbidden: User \"u\" is not allowed"}`)
	}))
	lines := make(chan string, 100)
	logger := funcr.New(func(_, line string) { lines <- line }, funcr.Options{})
	e, err := elector.NewForConfig(server.config(), elector.Options{
		Namespace: namespace, Name: name, StateDir: "-", Run: func(context.Context) error { return nil },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logger))
	returned := make(chan error, 1)
	go func() { returned <- e.Run(ctx) }()
	for missing := map[string]bool{"get": true, "watch": true}; len(missing) > 0; {
		line := <-lines
		assert.NotContains(t, line, "webhook")
		for verb := range missing {
			if strings.Contains(line, verb+" lease") && strings.Contains(line, `grant the verb \"`+verb) {
				delete(missing, verb)
			}
		}
	}
	cancel()
	require.NoError(t, <-returned)
}

func TestElectorsOfOneClientLeaveNothingBehind(t *testing.T) {
	api := electortest.NewServer()
	defer api.Close()
	server := serveCounted(t, serveLeases(api))
	client, err := elector.NewClient(server.config())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running, leading sync.WaitGroup
	for i := range 30 {
		leading.Add(1)
		e, err := elector.New(client, elector.Options{
			Namespace: namespace, Name: string(rune('a'+i%26)) + "-" + string(rune('a'+i/26)),
			Run: func(ctx context.Context) error { leading.Done(); <-ctx.Done(); return nil },
		})
		require.NoError(t, err)
		running.Go(func() { assert.NoError(t, e.Run(ctx)) })
	}
	leading.Wait()
	cancel()
	running.Wait()
	assert.Eventually(t, func() bool { return server.open.Load() == 0 }, 30*time.Second, 10*time.Millisecond, "connections afterwards")
}

func TestNoClientIsRefusedAlsoAsANilPointer(t *testing.T) {
	for _, leases := range []coordinationv1client.LeasesGetter{nil, (*elector.Client)(nil), (*coordinationv1client.CoordinationV1Client)(nil)} {
		_, err := elector.New(leases, elector.Options{Namespace: namespace, Name: name, Run: func(context.Context) error { return nil }})
		assert.ErrorContains(t, err, "leases: required")
	}
}

// A counting client counts requests.
type counting struct {
	coordinationv1client.LeaseInterface
	n *atomic.Int32
}

func (c counting) Update(ctx context.Context, lease *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	c.n.Add(1)
	return c.LeaseInterface.Update(ctx, lease, opts)
}

func TestWhatIsPutAroundAClientSeesEachRequestAlsoOnTheSpareConnection(t *testing.T) {
	overWire(t, func(w *wire) {
		var inner, outer atomic.Int32
		around := func(n *atomic.Int32) func(coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface {
			return func(l coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface { return counting{l, n} }
		}
		all := w.elect(1, w.client().Wrap(around(&inner)).Wrap(around(&outer)))
		time.Sleep(time.Minute)
		w.kill(0)
		time.Sleep(time.Minute)
		w.oneTermEach(all)
		assert.Greater(t, w.made(), 1)
		assert.GreaterOrEqual(t, int(inner.Load()), w.requests("PUT"))
		assert.Equal(t, inner.Load(), outer.Load())
	})
}

func TestElectorsThatComeAndGoLeaveNothingBehind(t *testing.T) {
	api := electortest.NewServer()
	defer api.Close()
	server := serveCounted(t, serveLeases(api))
	const rounds, each = 10, 12
	var before int
	for range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var running, leading sync.WaitGroup
		for i := range each {
			leading.Add(1)
			e, err := elector.NewForConfig(server.config(), elector.Options{
				Namespace: namespace, Name: fmt.Sprint("shard-", i),
				Run: func(ctx context.Context) error { leading.Done(); <-ctx.Done(); return nil },
			})
			require.NoError(t, err)
			running.Go(func() { assert.NoError(t, e.Run(ctx)) })
		}
		leading.Wait()
		cancel()
		running.Wait()
		assert.Eventually(t, func() bool { return server.open.Load() == 0 }, 30*time.Second, 10*time.Millisecond, "connections afterwards")
		if before == 0 {
			before = runtime.NumGoroutine()
		}
	}
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+each }, 30*time.Second, 10*time.Millisecond, "goroutines afterwards")
	t.Logf("%d Electors that came and went: %d connections and %d goroutines are left", rounds*each, server.open.Load(), max(0, runtime.NumGoroutine()-before))
}

// L3, for an Elector and for a lock for client-go, whose client is around that of NewClient.
func TestOverdueRequestsHaveAConnectionOfTheirOwn(t *testing.T) {
	opts := elector.Options{Namespace: namespace, Name: name, Identity: "a", LeaseDuration: 5 * time.Second, RenewDeadline: 3 * time.Second, RetryPeriod: time.Second}
	acquire := func(ctx context.Context, l *leaderelection.Lock, err error) error {
		if err == nil {
			_, _, err = l.Get(ctx)
		}
		return err
	}
	for how, start := range map[string]func(ctx context.Context, cfg *rest.Config) error{
		"elector.NewForConfig": func(ctx context.Context, cfg *rest.Config) error {
			opts := opts
			opts.Run = func(ctx context.Context) error { <-ctx.Done(); return nil }
			e, err := elector.NewForConfig(cfg, opts)
			if err == nil {
				go e.Run(ctx)
			}
			return err
		},
		"leaderelection.NewLock": func(ctx context.Context, cfg *rest.Config) error {
			client, err := elector.NewClient(cfg)
			require.NoError(t, err)
			l, err := leaderelection.NewLock(client, opts)
			return acquire(ctx, l, err)
		},
		"leaderelection.NewLockForConfig": func(ctx context.Context, cfg *rest.Config) error {
			l, err := leaderelection.NewLockForConfig(cfg, opts)
			return acquire(ctx, l, err)
		},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			api := electortest.NewServer()
			defer api.Close()
			leases, from := serveLeases(api), make(chan string, 100)
			server := serveCounted(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					from <- r.RemoteAddr
					<-r.Context().Done() // no renewal is answered
					return
				}
				leases.ServeHTTP(w, r)
			}))
			ctx, cancel := context.WithCancel(t.Context())
			require.NoError(t, start(ctx, server.config()))
			first := <-from
			second := <-from
			assert.NotEqual(t, first, second)
			cancel()
			assert.Eventually(t, func() bool { return server.open.Load() == 0 }, 30*time.Second, 10*time.Millisecond, "connections afterwards")
		})
	}
}

func TestAConnectionThatIsMadeAfterTheLastRunHasEndedIsClosed(t *testing.T) {
	api := electortest.NewServer()
	defer api.Close()
	server := serveCounted(t, serveLeases(api))
	cfg := server.config()
	dialing, dial := make(chan struct{}, 10), make(chan struct{})
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialing <- struct{}{}
		<-dial // and net/http goes on to dial for later requests, although this one is given up
		return new(net.Dialer).DialContext(context.WithoutCancel(ctx), network, address)
	}
	e, err := elector.NewForConfig(cfg, elector.Options{Namespace: namespace, Name: name, Run: func(context.Context) error { return nil }})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	<-dialing
	cancel()
	require.NoError(t, <-ended)
	close(dial)
	assert.Eventually(t, func() bool { return server.made.Load() > 0 }, 30*time.Second, 10*time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	assert.Eventually(t, func() bool { return server.open.Load() == 0 }, 5*time.Second, 10*time.Millisecond, "connections afterwards")
}
