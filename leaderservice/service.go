package leaderservice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	discoveryv1client "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
)

const (
	defaultGrace = time.Second
	defaultWait  = time.Second
)

// Options say which Service sends its requests to the leader, and where this replica is. Namespace, Service, Address
// and Ports are required.
type Options struct {
	// Namespace of the Service.
	Namespace string

	// Service is the name of a Service without a selector. It need not exist yet.
	Service string

	// Name of the EndpointSlice. Default: the Service's, and "-leader".
	Name string

	// Address is the IP address of this replica, in a pod status.podIP. The API refuses loopback addresses.
	Address string

	// Ports that this replica serves. Each needs a Port; its Name is that of the Service's port ("" if the Service has a
	// single port without a name). Forward passes requests on to the first port.
	Ports []discoveryv1.EndpointPort

	// Pod and Node name this replica's pod and its node, for people and for internalTrafficPolicy: Local. Default: not
	// said.
	Pod, Node string

	// Grace is how long the requests that Forward serves here may take, once work has returned because it was asked to
	// stop, before their contexts end. The Lease is kept meanwhile. Connections that were taken over, as WebSockets are,
	// have no grace. Default: 1 s. Negative: none.
	Grace time.Duration

	// Wait is how long Forward keeps a request that cannot be answered yet, as in the milliseconds of a hand-over, before
	// it is refused. Default: 1 s. Negative: no longer than the leader's address is being looked up.
	Wait time.Duration

	// Scheme is how Forward reaches the leader: "http" or "https". Default: "http".
	Scheme string

	// Transport is what Forward reaches the leader by. Default: a transport that ignores the environment's proxies and
	// gives up connecting after a second.
	Transport http.RoundTripper
}

// A Service publishes the leader of one election. Make it with New; it is for one Elector. Its methods may be called
// from any goroutine.
type Service struct {
	opts   Options
	slices discoveryv1client.EndpointSliceInterface
	tenure atomic.Pointer[tenure] // nil while this replica does not lead

	news signal // for requests that wait: it is worth while to try now

	log    logBeside
	met    sync.Map // the guards of EndpointSlices that were seen
	metAny atomic.Bool
}

// New returns a Service. It sends no request. All mistakes in opts are reported at once, each with its field.
func New(client discoveryv1client.EndpointSlicesGetter, opts Options) (*Service, error) {
	opts, err := opts.complete()
	if client == nil {
		err = errors.Join(errors.New("client: required: a client for discovery.k8s.io/v1, as clientset.DiscoveryV1()"), err)
	}
	if err != nil {
		return nil, fmt.Errorf("leaderservice: %w", err)
	}
	return &Service{opts: opts, slices: client.EndpointSlices(opts.Namespace)}, nil
}

// A signal wakes all who wait for it.
type signal struct {
	mu sync.Mutex
	c  chan struct{} // closed when it is raised
}

func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}

// Run returns a function for elector.Options.Run. It calls work, with the Service leading here meanwhile.
//
// It returns work's error, when work has returned, the EndpointSlice is empty, and the requests that Forward served here
// have ended. Emptying it takes a request; when the API is in trouble it is tried for 5 s, or until the term is
// lost, whichever is sooner. That the API refuses a write does not stop work; it is logged with what has to be granted.
// If work panics, the EndpointSlice is emptied in the same way before the process crashes.
func (s *Service) Run(work func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		term, ok := elector.TermFrom(ctx)
		if !ok {
			return errors.New("leaderservice: the ctx has no term: give Service.Run's function to elector.Options.Run, or call it with a ctx derived from the callback's")
		}
		t := newTenure(ctx, term)
		s.tenure.Store(t)
		s.news.raise()
		publishing, stop := context.WithCancel(ctx)
		var published sync.WaitGroup
		published.Go(func() { (&publication{Service: s, term: term}).keep(publishing) })
		defer func() { // also when work panics or ends its goroutine
			stop()
			t.close(s.opts.Grace)
			published.Wait()
			s.tenure.CompareAndSwap(t, nil)
		}()
		return work(ctx)
	}
}

// complete returns the options with defaults in place of zero values, and all that is wrong with them.
func (o Options) complete() (Options, error) {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("Options."+field+": "+format, args...))
	}
	if msgs := validation.ValidateNamespaceName(o.Namespace, false); len(msgs) > 0 {
		wrong("Namespace", "%q is not a namespace's name: %s", o.Namespace, strings.Join(msgs, "; "))
	}
	if msgs := utilvalidation.IsDNS1035Label(o.Service); len(msgs) > 0 {
		wrong("Service", "%q is not a Service's name: %s", o.Service, strings.Join(msgs, "; "))
	}
	o.Name = cmp.Or(o.Name, o.Service+"-leader")
	if msgs := validation.NameIsDNSSubdomain(o.Name, false); o.Service != "" && len(msgs) > 0 {
		wrong("Name", "%q is not an object's name: %s", o.Name, strings.Join(msgs, "; "))
	}
	if addr, err := netip.ParseAddr(o.Address); err != nil || addr.Zone() != "" {
		wrong("Address", "%q is not an IP address: in a pod it is status.podIP, by the downward API", o.Address)
	} else if addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast() {
		wrong("Address", "%s cannot be in an EndpointSlice: the API refuses loopback, unspecified and link-local addresses", o.Address)
	} else {
		o.Address = addr.Unmap().String() // the form that the API keeps, so that it is compared with the same
	}
	if len(o.Ports) == 0 {
		wrong("Ports", "required: at least one")
	}
	ports := make([]discoveryv1.EndpointPort, len(o.Ports))
	for i, p := range o.Ports {
		if msgs := utilvalidation.IsValidPortNum(int(ptr.Deref(p.Port, 0))); len(msgs) > 0 {
			wrong(fmt.Sprintf("Ports[%d].Port", i), "%d: %s", ptr.Deref(p.Port, 0), strings.Join(msgs, "; "))
		}
		// As the API fills them in, so that what was read can be compared with what is meant.
		p.Name = ptr.To(ptr.Deref(p.Name, ""))
		p.Protocol = ptr.To(ptr.Deref(p.Protocol, corev1.ProtocolTCP))
		ports[i] = p
	}
	o.Ports = ports
	o.Grace = cmp.Or(o.Grace, defaultGrace)
	o.Wait = cmp.Or(o.Wait, defaultWait)
	if o.Scheme = cmp.Or(o.Scheme, "http"); o.Scheme != "http" && o.Scheme != "https" {
		wrong("Scheme", "%q: must be http or https", o.Scheme)
	}
	if o.Transport == nil {
		o.Transport = defaultTransport()
	}
	return o, errors.Join(errs...)
}
