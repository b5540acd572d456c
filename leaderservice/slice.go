package leaderservice

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
)

const (
	managedBy = "leaderservice.elector-go.github.io"

	// The identity of the leader whose address it is, as in the Lease.
	holderAnnotation = "elector-go.github.io/holder"

	// The term that wrote the EndpointSlice last: the EndpointSlice's UID, "/", and the term's token. With the UID it says
	// nothing about an EndpointSlice that was copied or restored from a backup, where tokens may be smaller.
	termAnnotation = "elector-go.github.io/term"

	checkInterval = 10 * time.Second       // between two checks that nobody has edited it
	retryInterval = time.Second            // after an error
	withdrawRetry = 250 * time.Millisecond // after an error, while the Lease waits to be released
	withdrawLimit = 5 * time.Second        // in all
	requestLimit  = 2 * time.Second        // for one request
	conflictLimit = 5                      // writes of others in a row, before it counts as an error
)

var (
	errOver      = errors.New("the term is over")
	errOvertaken = errors.New("a later term has written it")
)

// A publication is the EndpointSlice as one term writes it. It is used by one goroutine.
type publication struct {
	*Service
	term elector.Term
	seen *discoveryv1.EndpointSlice // as last read or written; nil: to be read
	said string                     // the last error that was logged
}

// keep keeps this replica's address in the EndpointSlice until ctx ends, and then empties it.
func (p *publication) keep(ctx context.Context) {
	for ctx.Err() == nil {
		wait := checkInterval
		wrote, err := p.write(ctx, true)
		switch {
		case ctx.Err() != nil: // what it says is no trouble
		case err != nil:
			wait = retryInterval
			if err.Error() != p.said {
				p.say(ctx, func(log klog.Logger) { log.Error(err, "The Service may not lead to the leader") })
			}
			p.said = err.Error()
		default:
			if wrote {
				p.say(ctx, func(log klog.Logger) {
					log.Info("The Service leads to this replica", "address", p.opts.Address, "pod", p.opts.Pod)
				})
			}
			p.said = ""
		}
		sleep(ctx, wait)
		if wait == checkInterval {
			p.seen = nil
		}
	}
	if err := p.withdraw(ctx); err != nil {
		p.say(ctx, func(log klog.Logger) { log.Error(err, "The Service may lead here until the next leader's first write") })
	}
}

// say logs with the EndpointSlice's name and the term.
func (p *publication) say(ctx context.Context, line func(log klog.Logger)) {
	p.log.write(klog.FromContext(ctx), func(log klog.Logger) {
		line(log.WithValues("endpointSlice", klog.KRef(p.opts.Namespace, p.opts.Name), "term", p.term.Token()))
	})
}

// withdraw empties the EndpointSlice. It tries until that is done or useless, for withdrawLimit. A term that is lost
// writes nothing: its successor will, and the time until then is for stopping.
func (p *publication) withdraw(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawLimit) // ctx itself would let nothing through
	defer cancel()
	for {
		attempt, done := context.WithDeadline(ctx, p.term.ValidUntil())
		_, err := p.write(attempt, false)
		done()
		switch {
		case err == nil, errors.Is(err, errOvertaken):
			return nil
		case !p.term.Valid():
			return fmt.Errorf("not emptied: %w", errOver)
		case ctx.Err() != nil, apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
			return err
		}
		sleep(ctx, withdrawRetry)
	}
}

// write makes the EndpointSlice say that this replica leads, or that nobody does, and reports whether it had to be
// changed.
func (p *publication) write(ctx context.Context, leads bool) (wrote bool, err error) {
	for range conflictLimit {
		if !p.term.Valid() {
			return false, errOver
		}
		if p.seen == nil {
			if p.seen, err = p.read(ctx, leads); err != nil || p.seen == nil {
				return false, err
			}
		}
		seen := p.seen
		p.seen = nil // unless all goes well
		if later := writtenBy(seen); later > p.term.Token() {
			return false, fmt.Errorf("EndpointSlice %s/%s: token %d: %w; if none has, delete the EndpointSlice, and it is made anew",
				p.opts.Namespace, p.opts.Name, later, errOvertaken)
		}
		want := p.wanted(seen, leads)
		if apiequality.Semantic.DeepEqual(seen, want) {
			p.seen = seen
			return false, nil
		}
		if !p.term.Valid() { // reading took time
			return false, errOver
		}
		request, cancel := context.WithTimeout(ctx, requestLimit)
		p.seen, err = p.slices.Update(request, want, metav1.UpdateOptions{})
		cancel()
		if err == nil {
			return true, nil
		}
		p.seen = nil // what a failed request returns is not nil
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return false, p.explain("update", err)
		}
	}
	return false, p.explain("update", err)
}

// read returns the EndpointSlice. One that does not exist is made, empty: the API then gives it the UID that the term is
// noted with. But there is no need of that to withdraw, and it returns nil.
func (p *publication) read(ctx context.Context, make bool) (*discoveryv1.EndpointSlice, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	slice, err := p.slices.Get(ctx, p.opts.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		p.meet(slice)
		return slice, nil
	case !apierrors.IsNotFound(err):
		return nil, p.explain("get", err)
	case !make:
		return nil, nil
	}
	slice, err = p.slices.Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: p.opts.Namespace, Name: p.opts.Name, Labels: p.labels()},
		AddressType: addressType(p.opts.Address),
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, p.explain("create", err)
	}
	p.meet(slice)
	return slice, nil
}

// wanted is the EndpointSlice as it is to be. What others have added to its metadata stays.
func (p *publication) wanted(seen *discoveryv1.EndpointSlice, leads bool) *discoveryv1.EndpointSlice {
	want := seen.DeepCopy()
	for key, value := range p.labels() {
		metav1.SetMetaDataLabel(&want.ObjectMeta, key, value)
	}
	metav1.SetMetaDataAnnotation(&want.ObjectMeta, termAnnotation, fmt.Sprintf("%s/%d", seen.UID, p.term.Token()))
	if !leads {
		delete(want.Annotations, holderAnnotation)
		want.Endpoints = nil
		return want
	}
	metav1.SetMetaDataAnnotation(&want.ObjectMeta, holderAnnotation, p.term.Identity())
	endpoint := discoveryv1.Endpoint{
		Addresses:  []string{p.opts.Address},
		Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
	}
	if p.opts.Node != "" {
		endpoint.NodeName = ptr.To(p.opts.Node)
	}
	if p.opts.Pod != "" {
		endpoint.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: p.opts.Namespace, Name: p.opts.Pod}
	}
	want.Endpoints = []discoveryv1.Endpoint{endpoint}
	want.Ports = p.opts.Ports
	return want
}

func (p *publication) labels() map[string]string {
	return map[string]string{discoveryv1.LabelServiceName: p.opts.Service, discoveryv1.LabelManagedBy: managedBy}
}

// sleep returns when d has passed or ctx has ended.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// explain puts into an API error what its reader has to do about it, when waiting does not help.
func (s *Service) explain(verb string, err error) error {
	what := fmt.Sprintf("%s EndpointSlice %s/%s", verb, s.opts.Namespace, s.opts.Name)
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: forbidden: grant the verb %q on resource %q of apiGroup %q in namespace %q to this identity (Role and RoleBinding): %w",
			what, verb, "endpointslices", discoveryv1.GroupName, s.opts.Namespace, err)
	case apierrors.IsInvalid(err):
		return fmt.Errorf("%s: if it has another address type than this replica's address (%s), delete it, and it is made anew: %w", what, s.opts.Address, err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// writtenBy returns the token of the term that wrote the EndpointSlice last, 0 if that is not known.
func writtenBy(slice *discoveryv1.EndpointSlice) uint64 {
	uid, token, _ := strings.Cut(slice.Annotations[termAnnotation], "/")
	if uid != string(slice.UID) {
		return 0
	}
	n, _ := strconv.ParseUint(token, 10, 64)
	return n
}

func addressType(address string) discoveryv1.AddressType {
	if addr, _ := netip.ParseAddr(address); addr.Is6() {
		return discoveryv1.AddressTypeIPv6
	}
	return discoveryv1.AddressTypeIPv4
}

// portOf returns the port that Forward uses, of a leader's EndpointSlice: the one with the name of this replica's first.
func (s *Service) portOf(slice *discoveryv1.EndpointSlice) int32 {
	for _, port := range slice.Ports {
		if ptr.Deref(port.Name, "") == *s.opts.Ports[0].Name {
			return ptr.Deref(port.Port, 0)
		}
	}
	return *s.opts.Ports[0].Port
}
