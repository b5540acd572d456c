package elector_test

import (
	"context"
	"math"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/utils/ptr"
)

// A skewed client makes the clock of its candidate run at another rate. A bubble has a single clock. But to a candidate
// whose clock runs at 1.25, what it measures as 15 s is over after 12 s. The same is true of a candidate that knows of
// 12 s where others know of 15 s: in its options, and in the Lease.
type skewed struct {
	coordinationv1client.LeasesGetter
	rate  float64
	lease time.Duration // what the candidate writes, as others read it
}

// shrink is how long d by this clock really is.
func (s skewed) shrink(d time.Duration) time.Duration {
	return time.Duration(float64(d) / s.rate)
}

// own is how long this candidate's own lease, by its clock, really is, in whole seconds, as it has to be.
func (s skewed) own() time.Duration { return time.Duration(s.read(seconds(s.lease))) * time.Second }

func seconds(d time.Duration) int32 { return int32(d / time.Second) }

// read is how the candidate reads a duration in the Lease, and written how its own is written.
func (s skewed) read(seconds int32) int32 {
	if seconds <= 1 {
		return seconds // a release
	}
	return int32(max(math.Round(float64(seconds)/s.rate), 2))
}

func (s skewed) written(own int32) int32 {
	if own == seconds(s.own()) {
		return seconds(s.lease)
	}
	return own
}

func (s skewed) Leases(namespace string) coordinationv1client.LeaseInterface {
	return skewedLeases{s.LeasesGetter.Leases(namespace), s}
}

type skewedLeases struct {
	coordinationv1client.LeaseInterface
	skewed skewed
}

func change(l *coordinationv1.Lease, f func(int32) int32) *coordinationv1.Lease {
	if l == nil || l.Spec.LeaseDurationSeconds == nil {
		return l
	}
	l = l.DeepCopy()
	l.Spec.LeaseDurationSeconds = ptr.To(f(*l.Spec.LeaseDurationSeconds))
	return l
}

func (s skewedLeases) Get(ctx context.Context, name string, opts metav1.GetOptions) (*coordinationv1.Lease, error) {
	l, err := s.LeaseInterface.Get(ctx, name, opts)
	return change(l, s.skewed.read), err
}

func (s skewedLeases) Create(ctx context.Context, l *coordinationv1.Lease, opts metav1.CreateOptions) (*coordinationv1.Lease, error) {
	l, err := s.LeaseInterface.Create(ctx, change(l, s.skewed.written), opts)
	return change(l, s.skewed.read), err
}

func (s skewedLeases) Update(ctx context.Context, l *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	l, err := s.LeaseInterface.Update(ctx, change(l, s.skewed.written), opts)
	return change(l, s.skewed.read), err
}

func (s skewedLeases) Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	w, err := s.LeaseInterface.Watch(ctx, opts)
	if err != nil {
		return nil, err
	}
	out := make(chan watch.Event)
	proxy := watch.NewProxyWatcher(out)
	go func() {
		defer close(out)
		defer w.Stop()
		for {
			select {
			case ev, more := <-w.ResultChan():
				if !more {
					return
				}
				if l, ok := ev.Object.(*coordinationv1.Lease); ok {
					ev.Object = change(l, s.skewed.read)
				}
				select {
				case out <- ev:
				case <-proxy.StopChan():
					return
				}
			case <-proxy.StopChan():
				return
			}
		}
	}()
	return proxy, nil
}
