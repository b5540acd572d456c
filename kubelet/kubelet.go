// Package kubelet lets standbys take the Lease of a leader whose container has ended as soon as the leader's kubelet says
// so, which is about a second after the end, instead of when the Lease expires:
//
//	clientset, err := kubernetes.NewForConfig(cfg)
//	…
//	elector.Options{
//		…
//		Deaths: kubelet.New(clientset.CoreV1().Pods(namespace)),
//	}
//
// All candidates need it: the leader leaves the note, and the standbys read it.
//
// # How a death is proven
//
// Before it writes the Lease, a candidate writes into the termination log of its container which term that write begins.
// The kubelet makes a file of its own for each instance of a container, and copies what is in it into the status of the
// pod when the runtime has reported that just this instance has ended. So if a term stands in the message of
// state.terminated or lastState.terminated of any container, the process that won it is dead. It counts if containerID
// and finishedAt are set, and the reason is OOMKilled, or Completed or Error with an exit code other than 137 and 255:
// with these two a runtime reports an end that it has not seen. Nothing else is a proof: not a pod that is gone, evicted
// or failed, nor a node that does not answer. Then the Lease has to expire, as without this package, and so after a
// SIGKILL that is not the kernel's for want of memory: its exit code is 137.
//
// The process must die with its container. Where containers share a PID namespace (hostPID, shareProcessNamespace), or
// where the file cannot be recognised as the kubelet's (as in most sandboxes that are machines of their own), no note is
// left, and the log says why.
//
// # What it needs and costs
//
// The candidates must be able to read pods in the namespace; a Role cannot restrict that to their own:
//
//   - apiGroups: [""]
//     resources: [pods]
//     verbs: [get, watch]
//
// With watch, each standby watches one pod, the leader's. With get alone it reads it each second while a renewal is late:
// the next one then leads up to a RetryPeriod and a second later. Without both it logs that, and the Lease has to expire.
//
// The pod is the one that the holder's identity names before its first "_", as the default identity does, which begins with
// the host name. So with an identity of another kind no death is proven, and not in pods with hostNetwork, whose host
// name is the node's, with a hostname or subdomain field of their own, or with a name longer than a host name may be
// (63 characters).
//
// The termination log belongs to the program, too. A message that the program writes there as it ends takes the place of
// the note, and proves nothing. With a note in the file, the policy FallbackToLogsOnError has no effect. A kubelet reads
// 4 KiB of a container, which is room for the terms of about 170 Leases, and 12 KiB of a pod.
//
// # What it trusts
//
// If a runtime reports the end of a container that lives on, two replicas can lead at once. The old leader stops when it
// sees the new record, which takes milliseconds, but if at the same time it is cut off from the API, only when its
// RenewDeadline has passed. Known of containerd: when a shim is killed, it reports exit code 137, and if the kernel had
// killed any process of that container for want of memory before, with the reason OOMKilled; the container may live on.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/elector-go/elector/internal/termlog"
)

// Deaths implements elector.Deaths by what kubelets say. One serves all Electors of a process whose candidates run in
// pods of one namespace.
type Deaths struct {
	pods corev1client.PodInterface
}

// New returns the deaths of the processes in the given pods: those of the namespace in which the candidates run, as
// clientset.CoreV1().Pods(namespace). It sends no request.
func New(pods corev1client.PodInterface) *Deaths { return &Deaths{pods} }

// Leave implements elector.Deaths: it writes the note into the termination log of this container.
func (*Deaths) Leave(lease types.NamespacedName, note string) error {
	return termlog.Leave(lease.String(), note)
}

// shortWatch is how long a watch lasts that is not worth another one at once.
const shortWatch = 5 * time.Second

// Watch implements elector.Deaths. Where the pod cannot be watched, it is read once.
func (d *Deaths) Watch(ctx context.Context, holder string, ended func(notes []string)) error {
	name, _, _ := strings.Cut(holder, "_")
	for {
		began := time.Now()
		err := d.watch(ctx, name, ended)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return errors.Join(err, d.read(ctx, name, ended))
		case time.Since(began) < shortWatch:
			return fmt.Errorf("the watch on pod %s has ended after %v", name, time.Since(began).Round(time.Millisecond))
		}
	}
}

func (d *Deaths) watch(ctx context.Context, name string, ended func(notes []string)) error {
	w, err := d.pods.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
		ResourceVersion: "0", // begins with the pod as the API server has it in its cache: an end stays true
	})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, open := <-w.ResultChan():
			if !open {
				return nil
			}
			if ev.Type == watch.Error {
				return apierrors.FromObject(ev.Object)
			}
			if pod, ok := ev.Object.(*corev1.Pod); ok { // in a DELETED event it is the last state
				ended(notesOf(pod, name))
			}
		}
	}
}

func (d *Deaths) read(ctx context.Context, name string, ended func(notes []string)) error {
	pod, err := d.pods.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // that proves nothing
	}
	if err == nil {
		ended(notesOf(pod, name))
	}
	return err
}

// notesOf returns the termination messages of those instances of the pod's containers that have ended for certain.
func notesOf(pod *corev1.Pod, name string) (notes []string) {
	if pod.Name != name {
		return nil
	}
	s := pod.Status
	for _, statuses := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for _, c := range statuses {
			for _, end := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
				if end != nil && isCertain(end) {
					notes = append(notes, end.Message)
				}
			}
		}
	}
	return notes
}

// isCertain reports whether the runtime has seen the end of the container's first process. What a kubelet infers has no
// containerID. Where a runtime does not know, it says 255 (containerd, CRI-O, Kata Containers) or, where containerd's shim
// has died, 137; then the process may live on (containerd#10727).
func isCertain(end *corev1.ContainerStateTerminated) bool {
	if end.ContainerID == "" || end.FinishedAt.IsZero() {
		return false
	}
	switch end.Reason {
	case "OOMKilled":
		return true
	case "Completed", "Error":
		return end.ExitCode != 137 && end.ExitCode != 255
	default:
		return false
	}
}
