package operator

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// A controller's name, queue and sources are fields of a type that is internal to controller-runtime, and there is no
// other way to them. Where a version has no such field the zero value is found, and nothing is refused.

// field is the field of a controller, or of anything else the zero Value.
func field(r manager.Runnable, name string) reflect.Value {
	v := reflect.ValueOf(r)
	if v.Kind() != reflect.Pointer || !strings.HasPrefix(v.Type().String(), "*controller.Controller[") {
		return reflect.Value{}
	}
	return v.Elem().FieldByName(name)
}

// controllerName is the name of a controller, and empty for anything else.
func controllerName(r manager.Runnable) string {
	if v := field(r, "Name"); v.Kind() == reflect.String {
		return v.String()
	}
	return ""
}

func describe(r manager.Runnable) string {
	if name := controllerName(r); name != "" {
		return fmt.Sprintf("the controller %q", name)
	}
	return fmt.Sprintf("%T", r)
}

// channels are the addresses of the channel sources of a controller that has not been started.
func channels(r manager.Runnable) (addresses []uintptr) {
	sources := field(r, "startWatches")
	if sources.Kind() != reflect.Slice {
		return nil
	}
	for i := range sources.Len() {
		if s := sources.Index(i).Elem(); s.Kind() == reflect.Pointer && strings.HasPrefix(s.Type().String(), "*source.channel[") {
			addresses = append(addresses, s.Pointer())
		}
	}
	return addresses
}

// stopsWithTerm sees to it that a controller begins nothing after the end of its term. A priority queue drops its
// backlog then; others have it worked off. (The priority queue is not made the default here: that of v0.21 does not wake
// its workers when it is shut down.)
func stopsWithTerm(r manager.Runnable) error {
	do := field(r, "Do")
	if do.IsValid() && do.Type() == reflect.TypeFor[reconcile.Reconciler]() {
		do.Set(reflect.ValueOf(untilEnd{do.Interface().(reconcile.Reconciler)}))
		return nil
	}
	// The request is of another type, so the reconciler cannot be wrapped: the queue has to be right. Without a name it
	// has no metrics.
	newQueue := field(r, "NewQueue")
	if newQueue.Kind() != reflect.Func {
		return nil
	}
	queue := newQueue.Call([]reflect.Value{reflect.ValueOf(""), field(r, "RateLimiter")})[0]
	defer queue.MethodByName("ShutDown").Call(nil)
	if !queue.Elem().MethodByName("AddWithOpts").IsValid() {
		return fmt.Errorf("operator: %s has a queue whose backlog is worked off after the end of a term, when another replica may lead: set UsePriorityQueue to true and leave NewQueue out of its options", describe(r))
	}
	return nil
}

// untilEnd is a reconciler that is not called any more when the term is over.
type untilEnd struct{ reconcile.Reconciler }

// Reconcile leaves the request to the next leader, which reconciles all there is.
func (r untilEnd) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if ctx.Err() != nil {
		return reconcile.Result{}, nil
	}
	return r.Reconciler.Reconcile(ctx, req)
}

// queueGauges are controller-runtime's gauges of work queues, which do not go back to zero when a queue is shut down.
func queueGauges() (gauges []*prometheus.GaugeVec) {
	for _, g := range []struct {
		key, help string
		labels    []string
	}{
		{metrics.DepthKey, "Current depth of workqueue by workqueue and priority", []string{"name", "controller", "priority"}},
		{metrics.UnfinishedWorkKey, "How many seconds of work has been done that " +
			"is in progress and hasn't been observed by work_duration. Large " +
			"values indicate stuck threads. One can deduce the number of stuck " +
			"threads by observing the rate at which this increases.", []string{"name", "controller"}},
		{metrics.LongestRunningProcessorKey, "How many seconds has the longest running " +
			"processor for workqueue been running.", []string{"name", "controller"}},
	} {
		// A registry hands out a collector only to who tries to register an equal one.
		same := prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: metrics.WorkQueueSubsystem, Name: g.key, Help: g.help}, g.labels)
		err := metrics.Registry.Register(same)
		var there prometheus.AlreadyRegisteredError
		if !errors.As(err, &there) {
			metrics.Registry.Unregister(same) // without controllers there are no such gauges
			continue
		}
		if gauge, ok := there.ExistingCollector.(*prometheus.GaugeVec); ok {
			gauges = append(gauges, gauge)
		}
	}
	return gauges
}

// forgetQueues takes the queues of these controllers out of the metrics.
func forgetQueues(names map[string]bool) {
	if len(names) == 0 {
		return
	}
	for _, gauge := range queueGauges() {
		for name := range names {
			gauge.DeletePartialMatch(prometheus.Labels{"controller": name})
		}
	}
}
