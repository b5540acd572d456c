package operator

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// An apiServer serves Leases and takes Events, over HTTP/2 as a kube-apiserver does, and counts its connections.
type apiServer struct {
	*httptest.Server
	leases          *electortest.Server
	events          chan *corev1.Event
	dialled, open   atomic.Int64 // connections
	watches, others atomic.Int64 // requests under way
	away            atomic.Bool  // every request is answered by 503
}

func newAPIServer(t *testing.T) *apiServer {
	api := &apiServer{leases: electortest.NewServer(), events: make(chan *corev1.Event, 100)}
	t.Cleanup(api.leases.Close)
	api.Server = httptest.NewUnstartedServer(api)
	api.EnableHTTP2 = true
	api.Config.ErrorLog = log.New(io.Discard, "", 0)
	api.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			api.dialled.Add(1)
			api.open.Add(1)
		case http.StateClosed:
			api.open.Add(-1)
		}
	}
	api.StartTLS()
	t.Cleanup(api.Close)
	t.Cleanup(api.CloseClientConnections)
	return api
}

func (api *apiServer) config() *rest.Config {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	return &rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
}

// ServeHTTP serves /apis/coordination.k8s.io/v1/namespaces/{namespace}/leases[/{name}], and Events.
func (api *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if api.away.Load() {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/apis/coordination.k8s.io/v1/namespaces/"), "/")
	if strings.HasSuffix(r.URL.Path, "/events") {
		if e, ok := decode(r).(*corev1.Event); ok {
			api.events <- e
			answer(w, e, nil)
		}
		return
	}
	if len(path) < 2 || path[1] != "leases" {
		return
	}
	underWay := &api.others
	if r.URL.Query().Get("watch") != "" {
		underWay = &api.watches
	}
	underWay.Add(1)
	defer underWay.Add(-1)
	leases := api.leases.Client(r.UserAgent()).CoordinationV1().Leases(path[0])
	if r.URL.Query().Get("watch") != "" {
		events, err := leases.Watch(r.Context(), metav1.ListOptions{FieldSelector: r.URL.Query().Get("fieldSelector")})
		if err != nil {
			answer(w, nil, err)
			return
		}
		defer events.Stop()
		follow(w, r, events)
		return
	}
	var lease *coordinationv1.Lease
	var err error
	switch r.Method {
	case http.MethodGet:
		lease, err = leases.Get(r.Context(), path[2], metav1.GetOptions{})
	case http.MethodPost:
		if lease, _ = decode(r).(*coordinationv1.Lease); lease != nil {
			lease, err = leases.Create(r.Context(), lease, metav1.CreateOptions{})
		}
	case http.MethodPut:
		if lease, _ = decode(r).(*coordinationv1.Lease); lease != nil {
			lease, err = leases.Update(r.Context(), lease, metav1.UpdateOptions{})
		}
	}
	answer(w, lease, err)
}

func decode(r *http.Request) runtime.Object {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil // the client is gone
	}
	o, err := runtime.Decode(scheme.Codecs.UniversalDeserializer(), body) // protobuf or JSON
	if err != nil {
		panic(err)
	}
	return o
}

func answer(w http.ResponseWriter, o runtime.Object, err error) {
	w.Header().Set("Content-Type", "application/json")
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		s := status.Status()
		w.WriteHeader(int(s.Code))
		o = &s
	}
	_ = json.NewEncoder(w).Encode(typed(o))
}

func typed(o runtime.Object) runtime.Object {
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil {
		panic(err)
	}
	o.GetObjectKind().SetGroupVersionKind(kinds[0])
	return o
}

// follow sends a watch's events until it ends.
func follow(w http.ResponseWriter, r *http.Request, events watch.Interface) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	for {
		w.(http.Flusher).Flush()
		select {
		case ev, more := <-events.ResultChan():
			if !more {
				return
			}
			_ = json.NewEncoder(w).Encode(struct {
				Type   watch.EventType `json:"type"`
				Object runtime.Object  `json:"object"`
			}{ev.Type, typed(ev.Object)})
		case <-r.Context().Done():
			return
		}
	}
}

// A replica is one process of an operator: a manager, what it has logged, and its API server.
type replica struct {
	*apiServer
	t        *testing.T
	mgr      manager.Manager
	stop     context.CancelFunc
	returned chan error

	mu    sync.Mutex // guards lines
	lines []line
}

type line struct {
	message, text string
	isError       bool
}

// makers are the ways to a manager that elects.
var makers = map[string]func(*rest.Config, manager.Options, func(*elector.Options)) (manager.Manager, error){
	"New": func(cfg *rest.Config, opts manager.Options, more func(*elector.Options)) (manager.Manager, error) {
		return New(cfg, opts, more)
	},
	"Elect": func(cfg *rest.Config, opts manager.Options, more func(*elector.Options)) (manager.Manager, error) {
		if _, err := Elect(cfg, &opts, more); err != nil {
			return nil, err
		}
		return manager.New(cfg, opts)
	},
	"NewManager": func(cfg *rest.Config, opts manager.Options, more func(*elector.Options)) (manager.Manager, error) {
		return NewManager(cfg, opts, func(manager.Manager) error { return nil }, more)
	},
	"controller-runtime": func(cfg *rest.Config, opts manager.Options, _ func(*elector.Options)) (manager.Manager, error) {
		return manager.New(cfg, opts)
	},
}

// newReplica starts a replica. With a holder, it stands by.
func newReplica(t *testing.T, maker, holder string, more ...func(*elector.Options)) *replica {
	r := &replica{apiServer: newAPIServer(t), t: t, returned: make(chan error, 1)}
	was := klog.CaptureState()
	t.Cleanup(was.Restore)
	logger := funcr.NewJSON(r.log, funcr.Options{Verbosity: 3})
	klog.SetLogger(logger)
	if holder != "" {
		r.take(holder)
	}
	mgr, err := makers[maker](r.config(), manager.Options{
		Logger: logger, Metrics: server.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
			mapper := meta.NewDefaultRESTMapper(nil)
			mapper.Add(corev1.SchemeGroupVersion.WithKind("Event"), meta.RESTScopeNamespace)
			return mapper, nil
		},
		LeaderElection: true, LeaderElectionNamespace: "shop", LeaderElectionID: "orders", LeaderElectionReleaseOnCancel: true,
		LeaseDuration: ptr.To(5 * time.Second), RenewDeadline: ptr.To(3 * time.Second), RetryPeriod: ptr.To(200 * time.Millisecond),
	}, func(o *elector.Options) {
		o.Identity = t.Name()
		o.OnOverrun = func(elector.Term) {} // the process of a test goes on
		for _, f := range more {
			f(o)
		}
	})
	require.NoError(t, err)
	r.mgr = mgr
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.returned <- mgr.Start(ctx) }()
	if holder == "" {
		<-mgr.Elected()
	}
	return r
}

func (r *replica) log(text string) {
	var l struct {
		Level *int
		Msg   string
		// Another replica that has lost its Lease may still be there.
		Identity string
	}
	_ = json.Unmarshal([]byte(text), &l)
	if l.Identity != "" && l.Identity != r.t.Name() ||
		strings.HasPrefix(l.Msg, "Unable to write event") && !strings.Contains(text, "Component:"+r.t.Name()+",") {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line{l.Msg, text, l.Level == nil})
}

// logged returns the lines of the log that contain this, and "" is in all.
func (r *replica) logged(what string) (found []line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if strings.Contains(l.text, what) {
			found = append(found, l)
		}
	}
	return found
}

func (r *replica) noErrors() {
	r.t.Helper()
	for _, l := range r.logged("") {
		require.False(r.t, l.isError, l.text)
	}
}

// take makes another the holder of the Lease.
func (r *replica) take(holder string) {
	leases := r.leases.Client("kubectl").CoordinationV1().Leases("shop")
	now := metav1.NowMicro()
	spec := coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: ptr.To[int32](30), RenewTime: &now, AcquireTime: &now}
	if err := r.leases.Edit("shop", "orders", func(l *coordinationv1.Lease) { l.Spec = spec }); err == nil {
		return
	}
	_, err := leases.Create(r.t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders"}, Spec: spec}, metav1.CreateOptions{})
	require.NoError(r.t, err)
}

// await waits until the log has a line that contains this.
func (r *replica) await(what string) {
	require.Eventually(r.t, func() bool { return len(r.logged(what)) > 0 }, time.Minute, time.Millisecond, what)
}

// event waits for the next Event that the API server gets.
func (r *replica) event() *corev1.Event {
	r.t.Helper()
	select {
	case e := <-r.events:
		return e
	case <-time.After(time.Minute):
		r.t.Fatal("no Event")
		return nil
	}
}

func TestALeaseThatIsTakenOverIsOneLineWithTheReason(t *testing.T) {
	for _, maker := range []string{"New", "Elect"} {
		t.Run(maker, func(t *testing.T) {
			r := newReplica(t, maker, "")
			require.Contains(t, r.event().Message, "became leader")
			r.take("thief")
			err := <-r.returned
			require.Error(t, err)
			if maker == "New" {
				require.ErrorIs(t, err, elector.ErrLost)
				require.ErrorContains(t, err, `taken over by "thief"`)
				require.Empty(t, r.logged("deadline exceeded"))
			}
			r.noErrors()
			require.Contains(t, r.event().Message, `stopped leading: taken over by "thief"`)
			r.await("Lost the lease")
			require.Len(t, r.logged("Lost the lease"), 1)
			require.Contains(t, r.logged("Lost the lease")[0].text, "taken over by")
			for _, l := range r.logged("deadline exceeded") {
				require.Contains(t, l.text, "taken over by", "a line that tells of the API only")
			}
		})
	}
}

func TestALossToAnAPIThatIsAwaySaysSo(t *testing.T) {
	r := newReplica(t, "New", "")
	require.NoError(t, r.Listener.Close())
	r.CloseClientConnections()
	err := <-r.returned
	require.ErrorIs(t, err, elector.ErrLost)
	require.ErrorContains(t, err, "not renewed in time: ")
	require.ErrorContains(t, err, "connection refused")
}

// write makes an Event with the manager's client.
func (r *replica) write(name string) error {
	return r.mgr.GetClient().Create(r.t.Context(), &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}})
}

func TestAnOutageOfTheAPIHoldsTheManagersWritesAndEndsNothing(t *testing.T) {
	recovering := func(o *elector.Options) { o.RecoveryDeadline = time.Hour }
	for _, maker := range []string{"New", "Elect", "NewManager"} {
		t.Run(maker, func(t *testing.T) {
			r := newReplica(t, maker, "", recovering)
			require.Contains(t, r.event().Message, "became leader")
			r.away.Store(true)
			r.CloseClientConnections()
			r.await("Suspended: ")
			written := make(chan error, 1)
			go func() { written <- r.write("held") }()
			time.Sleep(3 * time.Second) // client-go's elector would have stopped by now
			require.Empty(t, written)
			r.away.Store(false)
			require.NoError(t, <-written)
			r.await("Resumed: ")
			require.Empty(t, r.returned, "it leads on")
			require.Empty(t, r.logged("leader election lost"))
			require.Len(t, r.logged("Became leader"), 1)
		})
		t.Run(maker+"/standby", func(t *testing.T) {
			r := newReplica(t, maker, "another", recovering)
			r.await("New leader")
			if maker == "NewManager" {
				require.ErrorIs(t, r.write("refused"), elector.ErrNotLeader)
			} else {
				require.NoError(t, r.write("passes"))
			}
		})
	}
}

func TestACleanStopLogsNoError(t *testing.T) {
	for _, maker := range []string{"New", "Elect", "NewManager"} {
		for _, holder := range []string{"", "another"} {
			t.Run(maker+"/"+holder, func(t *testing.T) {
				r := newReplica(t, maker, holder)
				if holder == "" {
					require.Contains(t, r.event().Message, "became leader")
				} else {
					r.await("New leader")
					// Client-go logs a request of any client as an error that is cut off while its answer is read.
					require.Eventually(t, func() bool { return r.watches.Load() == 1 && r.others.Load() == 0 }, time.Minute, time.Millisecond)
					time.Sleep(200 * time.Millisecond) // what the server has answered is still to be read
				}
				r.stop()
				require.NoError(t, <-r.returned)
				if holder == "" {
					require.Contains(t, r.event().Message, "stopped leading: asked to stop")
				}
				time.Sleep(20 * time.Millisecond) // the manager's last line comes when Start has returned
				r.noErrors()
			})
		}
	}
}

func TestTheElectionHasEventsAsTheManagersHas(t *testing.T) {
	for _, maker := range []string{"controller-runtime", "New", "Elect", "NewManager"} {
		t.Run(maker, func(t *testing.T) {
			r := newReplica(t, maker, "")
			e := r.event()
			require.Equal(t, corev1.ObjectReference{
				Kind: "Lease", Namespace: "shop", Name: "orders", APIVersion: "coordination.k8s.io/v1",
				UID: e.InvolvedObject.UID, ResourceVersion: e.InvolvedObject.ResourceVersion,
			}, e.InvolvedObject)
			require.Equal(t, "LeaderElection", e.Reason)
			require.Equal(t, "Normal", e.Type)
			lease, err := r.leases.Client("kubectl").CoordinationV1().Leases("shop").Get(t.Context(), "orders", metav1.GetOptions{})
			require.NoError(t, err)
			require.Equal(t, *lease.Spec.HolderIdentity+" became leader", e.Message)
			require.Equal(t, *lease.Spec.HolderIdentity, e.Source.Component)
			r.stop()
			require.NoError(t, <-r.returned)
		})
	}
}

func TestAReplicaHasTwoConnections(t *testing.T) {
	for maker, want := range map[string]int64{"controller-runtime": 1, "New": 2, "Elect": 2, "NewManager": 2} {
		for _, holder := range []string{"", "another"} {
			t.Run(maker+"/"+holder, func(t *testing.T) {
				r := newReplica(t, maker, holder)
				if holder == "" {
					r.event()
				} else {
					require.Eventually(t, func() bool { return r.leases.Requests("", "get") > 0 && r.others.Load() == 0 }, time.Minute, time.Millisecond)
				}
				resp, err := r.mgr.GetHTTPClient().Get(r.URL + "/version") // alone: for two at once net/http would dial twice, and close one
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, want, r.dialled.Load())
				require.Equal(t, want, r.open.Load())
				r.stop()
				require.NoError(t, <-r.returned)
			})
		}
	}
}
