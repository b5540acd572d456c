package leaderservice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

const (
	// forwardedBy is the loop guard: the address of the replica that passed the request on. It is passed on
	// once.
	forwardedBy = "Elector-Forwarded-By"

	// notLeader marks the answer of a replica that a request was passed on to and that does not lead.
	notLeader = "Elector-Not-Leader"

	connectLimit = time.Second
	lookInterval = 50 * time.Millisecond  // between two lookups that found nothing
	waitInterval = 5 * time.Millisecond   // between two checks for a leader, while a request waits for one
	watchLeader  = 250 * time.Millisecond // how often a request under way asks whether the leader is still the same
)

// A leader is where requests go.
type leader struct {
	identity string // as in the Lease
	host     string // address and port
}

// Forward returns a handler. While this replica leads, local answers; otherwise the request is passed on to the leader.
// The function leading returns the leader's identity, as elector.Elector.Leader does. The address is read from the
// EndpointSlice, once it names the same leader.
//
// A request served here has a context that ends with the term: at once if the term is lost, after Options.Grace if it
// ends in good order. Connections that the handler takes over (http.Hijacker), as for a WebSocket, are closed when the
// callback's ctx ends. A request that was passed on ends when another leads.
//
// While nobody leads, or the leader cannot be reached, a request waits, for Options.Wait at most. A request with a body
// does not wait once the body was sent. After that the answer is 503 with a Retry-After of one second: the request was
// not carried out. If the connection broke after the request was sent, the answer is 502: the request may have been
// carried out. A request that was passed on already, as the header Elector-Forwarded-By shows, is not passed on again.
// The answer is 503.
//
// Request and response are passed on as they are, the Host header too, with X-Forwarded-For, -Host and -Proto. Do not
// let local trust those from clients.
func (s *Service) Forward(leading func() string, local http.Handler) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite:       s.rewrite,
		Transport:     s.opts.Transport,
		FlushInterval: -1, // streams, whatever their Content-Type says
		ModifyResponse: func(r *http.Response) error {
			if r.Header.Get(notLeader) != "" {
				return errNotLeader
			}
			return nil
		},
		ErrorHandler: passageFailed,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for deadline := time.Now().Add(s.opts.Wait); ; {
			if t := s.tenure.Load(); t != nil && t.serve(w, r, local) {
				return
			}
			if r.Header.Get(forwardedBy) != "" {
				w.Header().Set(notLeader, "true")
				refuse(w, "this replica does not lead, and the request has been passed on already")
				return
			}
			to, err := s.find(r.Context(), leading)
			if err == nil {
				err = pass(proxy, to, leading, w, r)
			}
			if err == nil {
				return
			}
			if !time.Now().Before(deadline) || !sleep(r.Context(), waitInterval) {
				refuse(w, err.Error())
				return
			}
		}
	})
}

// A passage is a request that is being passed on.
type passage struct {
	to    *leader
	again error // why it was not carried out and can be tried again
}

type passageKey struct{}

// pass passes a request on, for as long as the same leader leads. It returns an error if nothing was answered, and the
// request can be passed on again.
func pass(proxy http.Handler, to *leader, leading func() string, w http.ResponseWriter, r *http.Request) error {
	p := &passage{to: to}
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), passageKey{}, p))
	defer cancel()
	defer whileLeading(to.identity, leading, cancel)()
	proxy.ServeHTTP(w, r.WithContext(ctx))
	return p.again
}

func (s *Service) rewrite(r *httputil.ProxyRequest) {
	to := r.In.Context().Value(passageKey{}).(*passage).to
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = s.opts.Scheme, to.host, r.In.Host
	r.Out.URL.RawQuery = r.In.URL.RawQuery // ReverseProxy takes out what it cannot parse; that is for the leader to judge
	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	r.SetXForwarded()
	r.Out.Header.Set(forwardedBy, s.opts.Address)
}

// find returns the leader's address. It is remembered until another leads.
func (s *Service) find(ctx context.Context, leading func() string) (*leader, error) {
	identity := leading()
	if identity == "" {
		return nil, errors.New("nobody leads at the moment")
	}
	if known := s.known.Load(); known != nil && known.identity == identity {
		return known, nil
	}
	s.looking.Lock()
	defer s.looking.Unlock()
	if known := s.known.Load(); known != nil && known.identity == identity {
		return known, nil
	}
	if time.Since(s.looked) < lookInterval {
		return nil, errors.New("the leader has not said yet where it is")
	}
	s.looked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	slice, err := s.slices.Get(ctx, s.opts.Name, metav1.GetOptions{})
	if err != nil {
		klog.FromContext(ctx).Error(s.explain("get", err), "Cannot find the leader's address")
		return nil, errors.New("the leader's address cannot be found; this replica's log has the reason")
	}
	if slice.Annotations[holderAnnotation] != identity || len(slice.Endpoints) == 0 || len(slice.Endpoints[0].Addresses) == 0 {
		return nil, errors.New("the leader has not said yet where it is")
	}
	found := &leader{identity, net.JoinHostPort(slice.Endpoints[0].Addresses[0], strconv.Itoa(int(s.portOf(slice))))}
	if found.host == net.JoinHostPort(s.opts.Address, strconv.Itoa(int(*s.opts.Ports[0].Port))) {
		return nil, errors.New("this replica's term has just begun or ended")
	}
	if leading() != identity {
		return nil, errors.New("another replica has just begun to lead")
	}
	s.known.Store(found)
	return found, nil
}

// whileLeading calls cancel when another leads, until the function that it returns is called.
func whileLeading(identity string, leading func() string, cancel func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(watchLeader)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if leading() != identity {
					cancel()
					return
				}
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// sleep returns false if ctx has ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// refuse answers a request that was not carried out.
func refuse(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, why, http.StatusServiceUnavailable)
}

// passageFailed answers a request that could not be passed on, or leaves it for another try: if it was not carried out,
// and has no body that is spent.
func passageFailed(w http.ResponseWriter, r *http.Request, err error) {
	p := r.Context().Value(passageKey{}).(*passage)
	var op *net.OpError
	switch {
	case errors.Is(err, errNotLeader):
		err = fmt.Errorf("%s does not lead any more", p.to.identity)
	case errors.As(err, &op) && op.Op == "dial":
		err = fmt.Errorf("the leader, %s, cannot be reached", p.to.identity)
	default:
		klog.FromContext(r.Context()).V(2).Info("A request that was passed on has failed", "leader", p.to.identity, "err", err)
		http.Error(w, fmt.Sprintf("the connection to the leader, %s, broke: the request may have been carried out", p.to.identity), http.StatusBadGateway)
		return
	}
	if r.ContentLength == 0 {
		p.again = err
		return
	}
	refuse(w, err.Error())
}

var errNotLeader = errors.New("the replica does not lead")

func defaultTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil // for the way out of the cluster
	t.DialContext = (&net.Dialer{Timeout: connectLimit, KeepAlive: 15 * time.Second}).DialContext
	t.MaxIdleConnsPerHost = 32 // they all go to one host
	return t
}
