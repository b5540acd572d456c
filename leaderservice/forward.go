package leaderservice

import (
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	connectLimit = time.Second
	logInterval  = time.Minute // between two lines about the same trouble
)

// Forward returns a handler. While this replica leads, local answers; otherwise the request is passed on to the leader.
// The function leading returns the leader's identity, as elector.Elector.Leader does; it must not block. The address is
// read from the EndpointSlice, once it names the same leader; again, while there are requests, every ten seconds; and at
// once when the leader cannot be reached there.
//
// A request served here has a context that ends with the term: at once if the term is lost, after Options.Grace if it
// ends in good order. Connections that the handler takes over (http.Hijacker), as for a WebSocket, are closed when the
// callback's ctx ends. A request that was passed on ends when another leads.
//
// While nobody leads, or the leader cannot be reached, a request waits, for Options.Wait at most. So does one that
// reached a replica that leads no more, unless some of its body was sent. After that the answer is 503 with a
// Retry-After of one second: the request was not carried out. If the connection broke after the request was sent, the
// answer is 502: the request may have been carried out. What is wrong is logged to the logger in the request's context,
// klog.FromContext, once a minute.
//
// Request and response are passed on as they are, the Host header too, with X-Forwarded-For, -Host and -Proto. Do not
// let local trust those from clients. A request is passed on once only: it then carries a header, Elector-Forwarded-By,
// that the leader's Forward takes off. Neither clients nor other Services can make that header, because the UID of the
// EndpointSlice is part of it.
func (s *Service) Forward(leading func() string, local http.Handler) http.Handler {
	return &forwarder{finder: newFinder(s, leading), local: local}
}

// A forwarder is what Forward returns.
type forwarder struct {
	*finder
	local http.Handler
	said  sync.Map // from a *line to when it was logged
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r, guard := f.unguard(r)
	deadline := time.Now().Add(f.opts.Wait)
	inTime := func() bool { return r.Context().Err() == nil && time.Now().Before(deadline) }
	for first := true; ; first = false {
		news := f.news.wait() // before looking, or some could be missed
		if t := f.tenure.Load(); t != nil && t.serve(w, r, f.local) {
			return
		}
		if guard != "" {
			w.Header().Set(notLeader, guard)
			f.refuse(w, r, &trouble{answer: "this replica does not lead, and the request has been passed on already"})
			return
		}
		to := f.take()
		if to == nil && (first || inTime()) {
			if to = f.wait(r.Context(), news, deadline); to == nil {
				continue
			}
		}
		if to == nil {
			f.refuse(w, r, f.why())
			return
		}
		why, again := f.pass(to, w, r)
		if why == nil {
			return
		}
		if !again || !inTime() {
			f.refuse(w, r, why)
			return
		}
	}
}

// A trouble is why a request was not answered by the leader.
type trouble struct {
	log    *line  // nil if there is nothing to say
	answer string // for the client: without addresses
	cause  error  // for the log
	sent   bool   // the request may have been carried out
}

// A line of the log says something once a minute, whoever leads.
type line struct {
	write func(log klog.Logger, cause error)
}

var notSaid = &trouble{answer: "the leader has not said yet where it is"}

// refuse answers a request that was not answered by the leader.
func (f *forwarder) refuse(w http.ResponseWriter, r *http.Request, why *trouble) {
	if why.log != nil && r.Context().Err() == nil && f.mayLog(why.log) {
		f.log.write(klog.FromContext(r.Context()), func(log klog.Logger) { why.log.write(log, why.cause) })
	}
	if why.sent {
		http.Error(w, why.answer, http.StatusBadGateway)
		return
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, why.answer, http.StatusServiceUnavailable)
}

// mayLog returns true for each line once a minute.
func (f *forwarder) mayLog(what *line) bool {
	now := time.Now()
	last, said := f.said.LoadOrStore(what, now)
	return !said || now.Sub(last.(time.Time)) >= logInterval && f.said.CompareAndSwap(what, last, now)
}

func defaultTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil // for the way out of the cluster
	t.DialContext = (&net.Dialer{Timeout: connectLimit, KeepAlive: 15 * time.Second}).DialContext
	t.MaxIdleConnsPerHost = 32 // they all go to one host
	return t
}
