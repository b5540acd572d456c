package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
)

const (
	label = "leaderservice.example.com/leader"
	yes   = "true"

	look  = 10 * time.Second // between two looks whether the label is where it should be
	again = time.Second      // after one that failed

	// Together less than three quarters of the stop budget, LeaseDuration - RenewDeadline, which is where OnOverrun ends
	// the process: after a lost lease a request may be under way, and then the label has to come off.
	oneRequest = time.Second
	comeOff    = 2 * time.Second
)

// A badge is the label by which the Service finds the leader's pod.
type badge struct {
	pods     corev1client.PodInterface
	self     string // the pod of this replica
	selector string // the pods of all replicas
}

// worn is work for Options.Run, with the badge on this pod meanwhile. It returns when work has returned and the badge is
// off; so, in a clean hand-over, it is off here before another replica can lead and put it on there.
func (b *badge) worn(work func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		wearing, stop := context.WithCancel(ctx)
		var worn sync.WaitGroup
		worn.Go(func() { b.wear(wearing) })
		err := work(ctx)
		stop()
		worn.Wait()
		return err
	}
}

// wear keeps the badge on this pod and on no other, until ctx ends, and then takes it off: at once, while work may need
// time to stop. It looks now and then, because anybody can edit labels.
func (b *badge) wear(ctx context.Context) {
	log := klog.FromContext(ctx)
	logged := ""
	for ctx.Err() == nil {
		wait := look
		if err := b.putOn(ctx); err != nil {
			if wait = again; err.Error() != logged {
				log.Error(err, "The Service may not lead to the leader", "pod", b.self)
			}
			logged = err.Error()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), comeOff) // ctx itself would let nothing through
	defer cancel()
	if err := b.takeOff(ctx); err != nil {
		log.Error(err, "The label stays on until another replica leads, and takes it off", "pod", b.self)
	}
}

// putOn puts the label on this pod, after it has taken it off all others: off those of leaders that have crashed. A
// moment without a leader's pod is better for the Service than one with two.
func (b *badge) putOn(ctx context.Context) error {
	term, _ := elector.TermFrom(ctx)
	// Not cancelled by ctx: a request that was given up may still be carried out, after the one that takes the label off.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), oneRequest)
	defer cancel()
	pods, err := b.pods.List(ctx, metav1.ListOptions{LabelSelector: b.selector + "," + label + "=" + yes})
	if err != nil {
		return fmt.Errorf("find the pods with the label: %w", err)
	}
	on := false
	for _, pod := range pods.Items {
		if pod.Name == b.self {
			on = true
			continue
		}
		// As the pod was seen, or not at all: it may have become the leader's since, and this replica have lost.
		seen := metav1.ObjectMeta{UID: pod.UID, ResourceVersion: pod.ResourceVersion}
		if err := b.set(ctx, pod.Name, seen, nil); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("take the label off pod %s: %w", pod.Name, err)
		}
		klog.FromContext(ctx).Info("Took the label off the pod of a past leader", "pod", pod.Name)
	}
	if on || !term.Valid() {
		return nil
	}
	if err := b.set(ctx, b.self, metav1.ObjectMeta{}, yes); err != nil {
		return fmt.Errorf("put the label on pod %s: %w", b.self, err)
	}
	klog.FromContext(ctx).Info("The Service leads to this pod", "pod", b.self, "token", term.Token())
	return nil
}

// takeOff takes the label off this pod. It tries until that is done, ctx ends, or it is refused.
func (b *badge) takeOff(ctx context.Context) error {
	for {
		err := b.set(ctx, b.self, metav1.ObjectMeta{}, nil)
		if err == nil || ctx.Err() != nil || apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
			return err
		}
		select {
		case <-time.After(again / 4):
		case <-ctx.Done():
		}
	}
}

// set patches a pod's label: yes, or nil for none. The cost has a Deployment delete the pods of standbys before the
// leader's, so that a rolling update moves leadership once.
func (b *badge) set(ctx context.Context, pod string, seen metav1.ObjectMeta, value any) error {
	var cost any
	if value != nil {
		cost = "1000"
	}
	metadata := map[string]any{
		"labels":      map[string]any{label: value},
		"annotations": map[string]any{corev1.PodDeletionCost: cost},
	}
	if seen.UID != "" {
		metadata["uid"], metadata["resourceVersion"] = seen.UID, seen.ResourceVersion // else it is a conflict
	}
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	_, err = b.pods.Patch(ctx, pod, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
