package kubelet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/internal/termlog"
)

var _ elector.Deaths = (*Deaths)(nil)

const podName = "orders-7d9c4b6f5-x2x7k"

var forbidden = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))

// pods plays the API: one pod, and what asks for it.
type pods struct {
	corev1client.PodInterface
	mu               sync.Mutex
	pod              *corev1.Pod
	watches          []*watch.FakeWatcher
	opts             []metav1.ListOptions
	gets             int
	watchErr, getErr error
}

func (p *pods) Get(_ context.Context, name string, _ metav1.GetOptions) (*corev1.Pod, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gets++
	if p.getErr == nil && (p.pod == nil || p.pod.Name != name) {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, name)
	}
	return p.pod, p.getErr
}

func (p *pods) Watch(_ context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opts = append(p.opts, opts)
	if p.watchErr != nil {
		return nil, p.watchErr
	}
	w := watch.NewFakeWithChanSize(100, false)
	if p.pod != nil {
		w.Add(p.pod)
	}
	p.watches = append(p.watches, w)
	return w, nil
}

func (p *pods) last() *watch.FakeWatcher {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.watches[len(p.watches)-1]
}

func ended(reason string, code int32) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{ContainerID: "containerd://1", Reason: reason, ExitCode: code, FinishedAt: metav1.NewTime(time.Unix(1e9, 0)), Message: "note"}
}

func podWith(edit func(s *corev1.PodStatus)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: podName}, Status: corev1.PodStatus{
		Phase:             corev1.PodRunning,
		ContainerStatuses: []corev1.ContainerStatus{{Name: "side"}, {Name: "main", ContainerID: "containerd://1"}},
	}}
	edit(&pod.Status)
	return pod
}

// Each state of a pod, and whether it proves that the writer of the note is dead.
func TestWhatAPodProves(t *testing.T) {
	state := func(end *corev1.ContainerStateTerminated) func(*corev1.PodStatus) {
		return func(s *corev1.PodStatus) { s.ContainerStatuses[1].State.Terminated = end }
	}
	without := func(edit func(*corev1.ContainerStateTerminated)) func(*corev1.PodStatus) {
		end := ended("Error", 2)
		edit(end)
		return state(end)
	}
	for what, c := range map[string]struct {
		edit  func(s *corev1.PodStatus)
		proof bool
	}{
		"OOMKilled": {state(ended("OOMKilled", 137)), true},
		"exit 1":    {state(ended("Error", 1)), true},
		"a panic":   {state(ended("Error", 2)), true},
		"SIGTERM":   {state(ended("Error", 143)), true},
		"exit 0":    {state(ended("Completed", 0)), true},
		"restarted": {func(s *corev1.PodStatus) { s.ContainerStatuses[1].LastTerminationState.Terminated = ended("Error", 2) }, true},
		"an init container": {func(s *corev1.PodStatus) {
			s.InitContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: ended("Error", 2)}}}
		}, true},
		"an ephemeral container": {func(s *corev1.PodStatus) {
			s.EphemeralContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: ended("Error", 2)}}}
		}, true},
		"the pod failed, and its container has ended": {func(s *corev1.PodStatus) { s.Phase = corev1.PodFailed; state(ended("Error", 2))(s) }, true},

		"it runs":                {func(*corev1.PodStatus) {}, false},
		"137, Error":             {state(ended("Error", 137)), false},
		"255, Unknown":           {state(ended("Unknown", 255)), false},
		"255, Error":             {state(ended("Error", 255)), false},
		"ContainerStatusUnknown": {state(ended("ContainerStatusUnknown", 137)), false},
		"another reason":         {state(ended("StartError", 128)), false},
		"no reason":              {state(ended("", 1)), false},
		"no containerID":         {without(func(e *corev1.ContainerStateTerminated) { e.ContainerID = "" }), false},
		"not finished":           {without(func(e *corev1.ContainerStateTerminated) { e.FinishedAt = metav1.Time{} }), false},
		"phase Failed alone":     {func(s *corev1.PodStatus) { s.Phase, s.Reason = corev1.PodFailed, "NodeLost" }, false},
		"waiting, with a message": {func(s *corev1.PodStatus) {
			s.ContainerStatuses[1].State.Waiting = &corev1.ContainerStateWaiting{Message: "note"}
		}, false},
		"a message of the pod's": {func(s *corev1.PodStatus) { s.Message = "note" }, false},
	} {
		got := notesOf(podWith(c.edit), podName)
		if c.proof {
			assert.Equal(t, []string{"note"}, got, what)
		} else {
			assert.Empty(t, got, what)
		}
	}
	assert.Empty(t, notesOf(podWith(state(ended("Error", 2))), "another"), "an API that does not heed the field selector")
}

// collect calls Watch until the test ends.
func collect(t *testing.T, p *pods) (seen func() [][]string, result <-chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var mu sync.Mutex
	var all [][]string
	done := make(chan error, 1)
	go func() {
		done <- New(p).Watch(ctx, podName+"_4d3c", func(notes []string) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, notes)
		})
	}()
	return func() [][]string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return all
	}, done
}

func TestOnePodIsWatchedAndEachOfItsStatesIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pods{pod: podWith(func(*corev1.PodStatus) {})}
		seen, _ := collect(t, p)
		require.Equal(t, [][]string{nil}, seen())
		require.Equal(t, "metadata.name="+podName, p.opts[0].FieldSelector)
		dead := podWith(func(s *corev1.PodStatus) { s.ContainerStatuses[1].State.Terminated = ended("Error", 2) })
		p.last().Modify(dead)
		require.Equal(t, [][]string{nil, {"note"}}, seen())
		p.last().Delete(dead)
		require.Equal(t, [][]string{nil, {"note"}, {"note"}}, seen(), "gone, with its last state")
		time.Sleep(time.Hour)
		p.last().Stop() // as API servers do after a while
		seen()
		require.Len(t, p.opts, 2, "watched again")
		require.Zero(t, p.gets)
	})
}

func TestAPodThatIsGoneProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pods{}
		seen, _ := collect(t, p)
		require.Empty(t, seen())
		running := podWith(func(*corev1.PodStatus) {})
		p.last().Add(running)
		p.last().Delete(running) // by force: the kubelet has said nothing
		p.last().Add(podWith(func(s *corev1.PodStatus) {
			end := ended("Error", 2)
			end.Message = "panic: of another pod with that name"
			s.ContainerStatuses[1].State.Terminated = end
		}))
		require.Equal(t, [][]string{nil, nil, {"panic: of another pod with that name"}}, seen())
	})
}

func TestWhereThePodCannotBeWatchedItIsRead(t *testing.T) {
	dead := podWith(func(s *corev1.PodStatus) { s.ContainerStatuses[1].State.Terminated = ended("Error", 2) })
	for what, c := range map[string]struct {
		p     *pods
		notes [][]string
	}{
		"get alone":       {&pods{pod: dead, watchErr: forbidden}, [][]string{{"note"}}},
		"neither":         {&pods{pod: dead, watchErr: forbidden, getErr: forbidden}, nil},
		"the pod is gone": {&pods{watchErr: forbidden}, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			seen, result := collect(t, c.p)
			require.Equal(t, c.notes, seen(), what)
			require.ErrorContains(t, <-result, "forbidden", what)
			require.Equal(t, 1, c.p.gets, "once: who calls knows when to ask again")
		})
	}
}

func TestAWatchThatEndsAtOnceIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pods{pod: podWith(func(*corev1.PodStatus) {})}
		seen, result := collect(t, p)
		seen()
		p.last().Stop()
		require.ErrorContains(t, <-result, "has ended after")

		_, result = collect(t, p)
		synctest.Wait()
		time.Sleep(time.Hour)
		p.last().Error(&metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Message: "too old"})
		require.ErrorContains(t, <-result, "too old")
		require.Equal(t, 1, p.gets)
	})
}

func TestTheNoteIsLeftInTheTerminationLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	before := termlog.Path
	defer func() { termlog.Path = before }()
	termlog.Path = func() (string, error) { return path, nil }
	require.NoError(t, New(nil).Leave(types.NamespacedName{Namespace: "shop", Name: "orders"}, "abc"))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(data), "abc")
	termlog.Path = func() (string, error) { return "", errors.New("not in a pod") }
	require.ErrorContains(t, New(nil).Leave(types.NamespacedName{}, "abc"), "not in a pod")
}
