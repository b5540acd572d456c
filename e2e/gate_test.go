package e2e

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"

	"github.com/elector-go/elector"
)

// lead runs an elector in this process, in the fleet's namespace and with the README's Role, until the test ends.
func (f *fleet) lead(opts elector.Options) *elector.Elector {
	f.t.Helper()
	opts.Namespace, opts.Name = f.namespace, leaseName
	el, err := elector.NewForConfig(shared.cluster.UserConfig(operator), opts)
	require.NoError(f.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- el.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		assert.NoError(f.t, <-ended)
	})
	require.Eventually(f.t, el.IsLeader, 10*time.Second, time.Millisecond)
	return el
}

// usurp puts another holder into the Lease.
func (f *fleet) usurp() {
	f.t.Helper()
	leases := shared.cluster.Admin().CoordinationV1().Leases(f.namespace)
	require.Eventually(f.t, func() bool { // a renewal may come between
		lease, err := leases.Get(f.t.Context(), leaseName, metav1.GetOptions{})
		require.NoError(f.t, err)
		lease.Spec.HolderIdentity = new("stranger")
		_, err = leases.Update(f.t.Context(), lease, metav1.UpdateOptions{})
		return err == nil
	}, 5*time.Second, time.Millisecond)
}

// TestACallbackThatIgnoresItsContextCannotWriteThroughTheGate has a callback that writes as fast as it can and never
// checks its context, as a stuck worker would.
func TestACallbackThatIgnoresItsContextCannotWriteThroughTheGate(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var configMaps corev1client.ConfigMapInterface
	var written, refused atomic.Int64
	begin, stop := make(chan struct{}), make(chan struct{})
	el := f.lead(elector.Options{OnOverrun: func(elector.Term) {}, Run: func(context.Context) error {
		<-begin
		for n := int64(1); ; n++ {
			select {
			case <-stop:
				return nil
			default:
			}
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "work"}, Data: map[string]string{"n": strconv.FormatInt(n, 10)}}
			if _, err := configMaps.Update(context.Background(), cm, metav1.UpdateOptions{}); err == nil {
				written.Store(n)
			} else if assert.ErrorIs(t, err, elector.ErrNotLeader) {
				refused.Add(1)
			}
		}
	}})
	cfg := shared.cluster.AdminConfig()
	cfg.QPS = -1
	cfg.Wrap(el.WrapTransport)
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(t, err)
	configMaps = client.CoreV1().ConfigMaps(f.namespace)
	_, err = configMaps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "work"}}, metav1.CreateOptions{})
	require.NoError(t, err, "the leader writes")
	close(begin)
	require.Eventually(t, func() bool { return written.Load() > 20 }, 10*time.Second, time.Millisecond)

	f.usurp()
	require.Eventually(t, func() bool { return refused.Load() > 0 }, 5*time.Second, time.Millisecond)
	require.False(t, el.IsLeader())
	last, err := shared.cluster.Admin().CoreV1().ConfigMaps(f.namespace).Get(t.Context(), "work", metav1.GetOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return refused.Load() > 1000 }, 10*time.Second, time.Millisecond)
	cm, err := configMaps.Get(t.Context(), "work", metav1.GetOptions{})
	require.NoError(t, err, "reads pass")
	require.Equal(t, last.ResourceVersion, cm.ResourceVersion, "nothing was written after the term")
	w, err := configMaps.Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err, "watches pass")
	require.Equal(t, "work", (<-w.ResultChan()).Object.(*corev1.ConfigMap).Name)
	w.Stop()
	close(stop)
	t.Logf("%d writes in the term, %d refused after it", written.Load(), refused.Load())
}

func TestAWriteUnderWayIsCutOffWhenTheTermEnds(t *testing.T) {
	t.Parallel()
	f, p := newFleet(t), newProxy(t)
	el := f.lead(elector.Options{Run: func(ctx context.Context) error { <-ctx.Done(); return nil }})
	cfg := shared.cluster.AdminConfig()
	cfg.Host = "https://" + p.Addr()
	cfg.Wrap(el.WrapTransport)
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(t, err)
	configMaps := client.CoreV1().ConfigMaps(f.namespace)
	work := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "work"}}
	_, err = configMaps.Create(t.Context(), work, metav1.CreateOptions{})
	require.NoError(t, err)

	p.DropReplies(true) // the server gets what is sent, and nobody hears of it
	ended := make(chan error, 1)
	go func() {
		_, err := configMaps.Update(context.Background(), work, metav1.UpdateOptions{})
		ended <- err
	}()
	select {
	case err := <-ended:
		require.Fail(t, "the write has ended before its term", "%v", err)
	case <-time.After(time.Second):
	}
	f.usurp()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, elector.ErrNotLeader)
		require.ErrorContains(t, err, "may have been carried out")
	case <-time.After(5 * time.Second):
		require.Fail(t, "the write was not cut off")
	}
}

func TestEventsOnTheLease(t *testing.T) {
	t.Parallel()
	for name, recorder := range map[string]func(t *testing.T) elector.EventRecorder{"record": oldRecorder, "events": newRecorder} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			f.lead(elector.Options{Identity: "a", Events: recorder(t), Run: func(ctx context.Context) error { <-ctx.Done(); return nil }})
			f.usurp()
			lease := f.getLease(t.Context())
			var got []string
			require.Eventually(t, func() bool {
				list, err := shared.cluster.Admin().CoreV1().Events(f.namespace).SearchWithContext(t.Context(), scheme.Scheme, lease) // as kubectl describe does
				require.NoError(t, err)
				got = nil
				for _, e := range list.Items {
					got = append(got, e.Type+" "+e.Reason+" "+e.Message)
				}
				return len(got) == 2
			}, 10*time.Second, 10*time.Millisecond, "%v", got)
			require.ElementsMatch(t, []string{
				"Normal LeaderElection a became leader",
				`Warning LeaderElection a stopped leading: taken over by "stranger"`,
			}, got)
		})
	}
}

// oldRecorder is one of client-go/tools/record.
func oldRecorder(t *testing.T) elector.EventRecorder {
	broadcaster := record.NewBroadcaster()
	t.Cleanup(broadcaster.Shutdown)
	broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: shared.cluster.Admin().CoreV1().Events("")})
	return broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "shop"})
}

// newRecorder is one of client-go/tools/events.
func newRecorder(t *testing.T) elector.EventRecorder {
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: shared.cluster.Admin().EventsV1()})
	t.Cleanup(broadcaster.Shutdown)
	require.NoError(t, broadcaster.StartRecordingToSinkWithContext(t.Context()))
	return newEvents{broadcaster.NewRecorder(scheme.Scheme, "shop")}
}

type newEvents struct{ events.EventRecorder }

func (e newEvents) Event(object runtime.Object, eventtype, reason, message string) {
	e.Eventf(object, nil, eventtype, reason, "Elect", "%s", message)
}
