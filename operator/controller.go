package operator

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/elector-go/elector"
)

// A controller's name, queue and sources are fields of a type that is internal to controller-runtime, and there is no
// other way to them. So known tries with a controller of its own whether they are where they are looked for. In a
// controller-runtime where they are not, no Manager is made.

// internals is what has to be known of this controller-runtime to see into controllers.
type internals struct {
	controller string // the generic type of controllers
	channel    string // and of channel sources
	gauges     []*prometheus.GaugeVec
}

// known is the internals of the controller-runtime of this process, or an error if it is one that this package does not
// know. A variable for tests.
var known = sync.OnceValues(func() (internals, error) {
	in, err := look()
	if err != nil {
		return internals{}, unknown(err)
	}
	return in, nil
})

func look() (in internals, err error) {
	const name = "elector"
	c, err := controller.NewUnmanaged(name, controller.Options{Reconciler: untilEnd{}, SkipNameValidation: ptr.To(true)})
	if err != nil {
		return in, err
	}
	channel := source.Channel(make(chan event.GenericEvent), &handler.EnqueueRequestForObject{})
	if err := c.Watch(channel); err != nil {
		return in, err
	}
	p, err := partsOf(c)
	if err != nil {
		return in, err
	}
	in = internals{controller: generic(c), channel: generic(channel)}
	switch found := p.channels(in.channel); {
	case p.name != name:
		return in, fmt.Errorf("the Name of the controller %q is %q", name, p.name)
	case p.do.Type() != reflect.TypeFor[reconcile.Reconciler]():
		return in, fmt.Errorf("the Do of a controller is a %v", p.do.Type())
	case in.channel == "" || len(found) != 1:
		return in, fmt.Errorf("a controller with one channel source has %d in startWatches", len(found))
	}
	in.gauges, err = queueGauges()
	return in, err
}

// generic names the type that v points to, without its type arguments. It is empty if v is no pointer.
func generic(v any) string {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer {
		return ""
	}
	name, _, _ := strings.Cut(t.Elem().Name(), "[")
	return t.Elem().PkgPath() + "." + name
}

// unknown is the error in a program whose controller-runtime this package does not know.
func unknown(what error) error {
	info, _ := debug.ReadBuildInfo()
	return fmt.Errorf("this package does not know %s; use a version of it that README names: %w", builtWith(info), what)
}

// builtWith is controller-runtime and its version in a program, as far as the program tells: tests do not.
func builtWith(info *debug.BuildInfo) string {
	const path = "sigs.k8s.io/controller-runtime"
	if info == nil {
		return path
	}
	for _, dep := range info.Deps {
		switch {
		case dep.Path != path:
		case dep.Replace != nil:
			return fmt.Sprintf("%s %s => %s %s", path, dep.Version, dep.Replace.Path, dep.Replace.Version)
		default:
			return path + " " + dep.Version
		}
	}
	return path
}

// parts are those parts of a controller that it does not show.
type parts struct {
	name        string
	do          reflect.Value // the reconciler
	newQueue    reflect.Value // a function of a name and the rate limiter
	rateLimiter reflect.Value
	sources     reflect.Value // a slice, until the controller is started
}

// partsOf finds the parts of a controller. What is not there, or is something else, is an error.
func partsOf(c any) (*parts, error) {
	v := reflect.ValueOf(c)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("a controller is a %T", c)
	}
	v = v.Elem()
	name, queue := v.FieldByName("Name"), v.FieldByName("NewQueue")
	p := &parts{do: v.FieldByName("Do"), newQueue: queue, rateLimiter: v.FieldByName("RateLimiter"), sources: v.FieldByName("startWatches")}
	var errs []error
	for field, ok := range map[string]bool{
		"Name":         name.Kind() == reflect.String,
		"Do":           p.do.Kind() == reflect.Interface && p.do.CanSet(),
		"NewQueue":     queue.Kind() == reflect.Func && queue.CanInterface() && takes(queue.Type(), p.rateLimiter),
		"startWatches": p.sources.Kind() == reflect.Slice && p.sources.Type().Elem().Kind() == reflect.Interface,
	} {
		if !ok {
			errs = append(errs, fmt.Errorf("a %T has no field %s, or another one", c, field))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	p.name = name.String()
	return p, nil
}

// takes reports whether a function makes a queue of a name and this rate limiter.
func takes(f reflect.Type, rateLimiter reflect.Value) bool {
	if f.NumIn() != 2 || f.In(0).Kind() != reflect.String || f.NumOut() != 1 || f.Out(0).Kind() != reflect.Interface {
		return false
	}
	_, ok := f.Out(0).MethodByName("ShutDown")
	return ok && rateLimiter.IsValid() && rateLimiter.CanInterface() && rateLimiter.Type().AssignableTo(f.In(1))
}

// channels are the addresses of the channel sources of a controller that has not been started.
func (p *parts) channels(channel string) (addresses []uintptr) {
	for i := range p.sources.Len() {
		s := p.sources.Index(i).Elem()
		if s.Kind() == reflect.Pointer && generic(reflect.Zero(s.Type()).Interface()) == channel {
			addresses = append(addresses, s.Pointer())
		}
	}
	return addresses
}

// seeInto finds the parts of a controller. They are nil for anything else.
func seeInto(r manager.Runnable) (*parts, error) {
	in, err := known()
	if err != nil {
		return nil, err
	}
	if generic(r) == in.controller {
		p, err := partsOf(r)
		if err != nil {
			return nil, fmt.Errorf("operator: %w", unknown(err))
		}
		return p, nil
	}
	if _, ok := r.(interface {
		reconcile.Reconciler
		Watch(source.Source) error
	}); ok {
		return nil, fmt.Errorf("operator: a %T has a controller inside that cannot be kept to its term: add the controller itself", r)
	}
	return nil, nil
}

// describe names a Runnable.
func describe(r manager.Runnable) string {
	if p, _ := seeInto(r); p != nil {
		return fmt.Sprintf("the controller %q", p.name)
	}
	return fmt.Sprintf("%T", r)
}

// channels are the addresses of the channel sources of a controller that has not been started.
func channels(r manager.Runnable) []uintptr {
	in, _ := known()
	if p, _ := seeInto(r); p != nil {
		return p.channels(in.channel)
	}
	return nil
}

// stopWithTerm sees to it that the controller begins nothing after the end of its term. A priority queue drops its
// backlog then; others have it worked off. (The priority queue is not made the default here: that of v0.21 does not wake
// its workers when it is shut down.)
func (p *parts) stopWithTerm() error {
	if p.do.Type() == reflect.TypeFor[reconcile.Reconciler]() {
		p.do.Set(reflect.ValueOf(untilEnd{p.do.Interface().(reconcile.Reconciler)}))
		return nil
	}
	// The request is of another type, so the reconciler cannot be wrapped: the queue has to be right. Without a name it
	// has no metrics.
	queue := p.newQueue.Call([]reflect.Value{reflect.ValueOf(""), p.rateLimiter})[0]
	defer queue.MethodByName("ShutDown").Call(nil)
	if !queue.Elem().MethodByName("AddWithOpts").IsValid() {
		return fmt.Errorf("operator: the controller %q has a queue whose backlog is worked off after the end of a term, when another replica may lead: set UsePriorityQueue to true and leave NewQueue out of its options", p.name)
	}
	return nil
}

// untilEnd is a reconciler that is not called any more when the term is over, nor while it is suspended.
type untilEnd struct{ reconcile.Reconciler }

// Reconcile leaves the request to the next leader, which reconciles all there is. What fails because the term is suspended
// is no reason to back off: it is tried again as soon as the term is valid.
func (r untilEnd) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	term, elected := elector.TermFrom(ctx)
	over := func() bool { return ctx.Err() != nil || elected && term.Await(ctx) != nil }
	if over() {
		return reconcile.Result{}, nil
	}
	result, err := r.Reconciler.Reconcile(ctx, req)
	if err == nil || !elected || term.Valid() && !errors.Is(err, elector.ErrSuspended) {
		return result, err
	}
	if over() {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: time.Nanosecond}, nil
}

// queueGauges are controller-runtime's gauges of work queues, which do not go back to zero when a queue is shut down.
func queueGauges() (gauges []*prometheus.GaugeVec, err error) {
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
		// The only way to a collector in a registry is to register an equal one: the error has the one that is there.
		same := prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: metrics.WorkQueueSubsystem, Name: g.key, Help: g.help}, g.labels)
		err := metrics.Registry.Register(same)
		if err == nil {
			metrics.Registry.Unregister(same)
		}
		var there prometheus.AlreadyRegisteredError
		errors.As(err, &there)
		gauge, ok := there.ExistingCollector.(*prometheus.GaugeVec)
		if !ok {
			return nil, fmt.Errorf("the gauge %s_%s is not there as it should be: %v", metrics.WorkQueueSubsystem, g.key, err)
		}
		gauges = append(gauges, gauge)
	}
	return gauges, nil
}

// forgetQueues takes the queues of these controllers out of the metrics.
func forgetQueues(names map[string]bool) {
	in, _ := known()
	for _, gauge := range in.gauges {
		for name := range names {
			gauge.DeletePartialMatch(prometheus.Labels{"controller": name})
		}
	}
}
