package electortest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

const (
	// firstVersion is where resourceVersions start. A real cluster has written many objects before anyone's first
	// Lease, so code that counts on starting at 1 must not pass here.
	firstVersion = 1000

	defaultMinWatchLifetime = 5 * time.Minute
	defaultMaxWatchLifetime = 10 * time.Minute
)

// Server is an in-memory API server for Leases. It answers conflicts, validation, resourceVersions and watches as a
// kube-apiserver does, which client-go's fake clientset does not: it accepts any resourceVersion.
//
// Make one with [NewServer], inside the synctest bubble if there is one, and end it with [Server.Close]. All methods
// may be called from any goroutine. Nothing in it depends on chance beyond the order of the calls: UIDs and watch
// lifetimes are the same in every run.
type Server struct {
	closed chan struct{} // closed by Close
	others *fake.Clientset

	// mu guards everything below. It is never held while waiting or while calling the user's code, so that a
	// synctest bubble never has a goroutine stuck on it.
	mu          sync.Mutex
	isClosed    bool
	clients     map[string]*Client
	counts      map[countKey]int
	leases      map[types.NamespacedName]*coordinationv1.Lease // never modified once stored, only replaced
	version     int64                                          // the last resourceVersion given out
	uids        int64
	coordinated bool
	admission   func(Request, *coordinationv1.Lease) error
	log         eventLog
	watches     map[types.NamespacedName][]*leaseWatch // by what they select; "" is any
	minLifetime time.Duration
	maxLifetime time.Duration
	random      *rand.Rand
}

type countKey struct{ client, verb string }

// NewServer returns a Server without Leases. Inside testing/synctest call it in the bubble, because its channels
// must belong to it.
func NewServer() *Server {
	return &Server{
		closed:      make(chan struct{}),
		others:      fake.NewClientset(),
		clients:     map[string]*Client{},
		counts:      map[countKey]int{},
		leases:      map[types.NamespacedName]*coordinationv1.Lease{},
		version:     firstVersion,
		log:         eventLog{trimmed: firstVersion},
		watches:     map[types.NamespacedName][]*leaseWatch{},
		minLifetime: defaultMinWatchLifetime,
		maxLifetime: defaultMaxWatchLifetime,
		random:      rand.New(rand.NewPCG(1, 2)),
	}
}

// Client returns the client of that name, made at the first call: the same name gives the same client. A client has
// a link to the server of its own, with its own latency, faults and watches; give each replica one.
func (s *Server) Client(name string) *Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[name]
	if c == nil {
		c = &Client{Clientset: s.others, name: name, server: s, watches: map[*leaseWatch]struct{}{}}
		s.clients[name] = c
	}
	return c
}

// Requests returns how many requests for Leases a client has sent with a verb (get, list, watch, create, update, patch,
// delete, deletecollection) since the start or the last [Server.ResetRequests]. "" matches any client, any verb. A
// request counts when it is sent, also if it is lost, refused or never answered, because that is what it costs the
// client. A request whose context had ended before is not sent.
func (s *Server) Requests(client, verb string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if client != "" && verb != "" {
		return s.counts[countKey{client, verb}]
	}
	total := 0
	for key, n := range s.counts {
		if (client == "" || client == key.client) && (verb == "" || verb == key.verb) {
			total += n
		}
	}
	return total
}

// ResetRequests sets all counts of [Server.Requests] to 0, so that a test can count from a quiet moment on.
func (s *Server) ResetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.counts)
}

// SetWatchLifetime sets after which time the server ends a watch by itself, as an API server does: for each watch
// opened from now on a random time from lo to hi (the same sequence in every run). The default is 5 to 10 minutes.
// A watch that asks for TimeoutSeconds gets those instead. With hi ≤ 0 watches never end by themselves.
func (s *Server) SetWatchLifetime(lo, hi time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.minLifetime, s.maxLifetime = lo, hi
}

// SetCoordinatedLeaderElection switches the feature gate of that name. Off (the default, here and on a real server)
// the fields strategy and preferredHolder of a Lease are dropped without a word, unless the stored Lease has them
// already; on, they are kept.
func (s *Server) SetCoordinatedLeaderElection(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coordinated = on
}

// SetAdmission calls f for each create, update and patch of every client when it arrives, as an API server calls its
// admission webhooks and policies. f may change lease, the object that is about to be stored, and an error from it is
// answered instead of storing anything (see [DeniedByPolicy] and [DeniedByWebhook]). What f makes of the Lease must be
// valid. It is called without locks, may be called from several goroutines at once, and for a patch again if somebody
// else wrote meanwhile. nil removes it. A policy that makes short Leases longer:
//
//	server.SetAdmission(func(_ electortest.Request, lease *coordinationv1.Lease) error {
//		if d := lease.Spec.LeaseDurationSeconds; d != nil && *d < 10 {
//			*d = 10
//		}
//		return nil
//	})
func (s *Server) SetAdmission(f func(req Request, lease *coordinationv1.Lease) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admission = f
}

// admit asks admission about a write. mu is not held.
func (s *Server) admit(req Request, lease *coordinationv1.Lease) error {
	s.mu.Lock()
	f := s.admission
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	req.Lease = req.Lease.DeepCopy()
	return f(req, lease)
}

// Close ends the server: calls that hang, also those that ignore their context, return an error, watches close, and
// later requests fail as if nothing listened. Call it at the end of a synctest bubble, which waits for its
// goroutines. A second call does nothing.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed {
		s.isClosed = true
		close(s.closed)
	}
}

func (s *Server) count(client, verb string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[countKey{client, verb}]++
}

// nextVersion, like all functions below, is called with mu held.
func (s *Server) nextVersion() int64 {
	s.version++
	return s.version
}

func (s *Server) nextUID() types.UID {
	s.uids++
	return types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012x", s.uids))
}

// lifetime draws the time after which a new watch ends by itself; 0 is never.
func (s *Server) lifetime() time.Duration {
	if s.maxLifetime <= 0 {
		return 0
	}
	if s.maxLifetime <= s.minLifetime {
		return s.minLifetime
	}
	return s.minLifetime + time.Duration(s.random.Int64N(int64(s.maxLifetime-s.minLifetime)+1))
}
