package leaderservice

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// The guard against loops: what was passed on is not passed on again. It belongs to one Service, and to the one hop
// from a standby to the leader. Its value names the EndpointSlice with its UID, which clients and other Services do not
// know, and which no handler sees.
const (
	// forwardedBy marks a request that was passed on.
	forwardedBy = "Elector-Forwarded-By"

	// notLeader marks the answer of a replica that a request was passed on to and that does not lead.
	notLeader = "Elector-Not-Leader"
)

// guard is the value of both headers.
func (s *Service) guard(slice *discoveryv1.EndpointSlice) string {
	return s.guards() + string(slice.UID)
}

// guards is what all guards of this Service begin with.
func (s *Service) guards() string { return fmt.Sprintf("%s/%s/", s.opts.Namespace, s.opts.Name) }

// meet notes the UID of an EndpointSlice. They are all kept: it may have been deleted and made anew, and another
// replica may not know that yet. Whoever passes a request on has the UID from the EndpointSlice that the other replica,
// when it led, wrote. So a replica knows all that reach it by right.
func (s *Service) meet(slice *discoveryv1.EndpointSlice) {
	s.met.Store(s.guard(slice), true)
	s.metAny.Store(true)
}

// unguard takes the guard off a request, and returns it, "" if there is none. Other values of this Service's are made
// up. A replica that has not seen the EndpointSlice yet believes them: its address may have been the leader's before.
func (s *Service) unguard(r *http.Request) (*http.Request, string) {
	values := r.Header[forwardedBy]
	if len(values) == 0 {
		return r, ""
	}
	guard := ""
	var others []string
	for _, v := range values {
		_, met := s.met.Load(v)
		switch {
		case met, !s.metAny.Load() && strings.HasPrefix(v, s.guards()):
			guard = v
		case strings.Count(v, "/") == 2 && !strings.HasPrefix(v, s.guards()):
			others = append(others, v) // another Service's, whose Forward is inside this one's
		}
	}
	r = r.WithContext(r.Context()) // the request and its header are the caller's
	r.Header = maps.Clone(r.Header)
	delete(r.Header, forwardedBy)
	if len(others) > 0 {
		r.Header[forwardedBy] = slices.Clip(others)
	}
	return r, guard
}
