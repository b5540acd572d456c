package leaderservice

import (
	"cmp"
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

const (
	waitInterval  = 5 * time.Millisecond   // between two checks for a new leader, while requests wait for one
	watchInterval = 250 * time.Millisecond // the same, while requests are under way and none waits
	lookInterval  = 50 * time.Millisecond  // between the first two look-ups that found nothing new; then twice that, and so on
	lookLimit     = time.Second            // up to this
)

// A leader is one replica's time as the leader, as this replica sees it.
type leader struct {
	identity string          // as in the Lease; "" if nobody leads
	over     context.Context // ends when another leads
	end      context.CancelFunc
}

// A route is where requests go: what the EndpointSlice says of a leader.
type route struct {
	*leader
	host  string // address and port
	guard string // see Service.guard
}

// A finder knows the route to the leader, for all requests of a handler. They share each look-up, and one goroutine
// that watches for another leader, which lives as long as there is a request that waits or was passed on.
type finder struct {
	*Service
	leading func() string
	trial   chan *route   // the route in doubt, for one of the requests that wait
	hurry   chan struct{} // wakes the goroutine

	mu      sync.Mutex
	leader  *leader
	route   *route    // nil while requests have to wait
	doubt   *route    // could not be reached: one request at a time tries it again
	trouble *trouble  // why requests wait
	watched bool      // the goroutine runs
	waiting int       // requests
	passing int       // requests
	asking  bool      // a look-up is under way
	stale   time.Time // when the route is read again, in case somebody has edited it
	next    time.Time // when the next look-up or trial may be, while requests wait
	pause   time.Duration
}

func newFinder(s *Service, leading func() string) *finder {
	f := &finder{Service: s, leading: leading, trial: make(chan *route, 1), hurry: make(chan struct{}, 1)}
	f.follow("")
	return f
}

// take returns the route, if there is one. It is given back by leave.
func (f *finder) take() *route {
	identity := f.leading()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.route == nil || f.route.identity != identity {
		return nil
	}
	if time.Now().After(f.stale) {
		f.ask()
	}
	f.passing++
	f.watch()
	return f.route
}

// wait waits for news, until it is too late. If the request is the one that tries a route in doubt, wait takes it.
func (f *finder) wait(ctx context.Context, news <-chan struct{}, deadline time.Time) (to *route) {
	f.mu.Lock()
	f.waiting++
	f.watch()
	f.mu.Unlock()
	var late <-chan time.Time
	if f.opts.Wait > 0 { // otherwise look makes an end
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-news:
	case to = <-f.trial:
	case <-ctx.Done():
	case <-late:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting--
	if to == nil || to != f.doubt {
		return nil
	}
	f.passing++
	return to
}

// leave gives a route back.
func (f *finder) leave(to *route, answered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passing--
	if answered && to == f.route {
		f.pause = lookInterval
	}
}

// reached says that a route in doubt is good.
func (f *finder) reached(to *route) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if to == f.doubt {
		f.use(to)
	}
}

// lost says that a route does not lead to the leader. If it leads to nobody it is in doubt.
func (f *finder) lost(to *route, doubt bool, why *trouble) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if to != f.route && to != f.doubt {
		return
	}
	f.route, f.doubt, f.trouble = nil, nil, why
	if doubt {
		f.doubt = to
	}
}

// suspect says that a request ended before it was connected, which may be the route's fault.
func (f *finder) suspect(to *route) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if soon := time.Now().Add(lookLimit); to == f.route && soon.Before(f.stale) {
		f.stale = soon
	}
}

// why returns why a request was not passed on.
func (f *finder) why() *trouble {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble
}

// watch makes sure that somebody looks, and soon if there are requests that wait. f.mu is held.
func (f *finder) watch() {
	if f.watched {
		if f.waiting == 1 {
			select {
			case f.hurry <- struct{}{}:
			default:
			}
		}
		return
	}
	f.watched = true
	go func() {
		for again := f.look(); again > 0; again = f.look() {
			select {
			case <-time.After(again):
			case <-f.hurry:
			}
		}
	}()
}

// look looks who leads, and does what the requests that wait need. It returns when to look again, 0 for never.
func (f *finder) look() time.Duration {
	identity := f.leading()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting+f.passing == 0 {
		f.watched = false
		return 0
	}
	if identity != f.leader.identity {
		f.leader.end()
		f.follow(identity)
	}
	if f.waiting == 0 {
		return watchInterval
	}
	if now := time.Now(); identity != "" && f.route == nil && !now.Before(f.next) {
		f.next = now.Add(f.pause)
		f.pause = min(2*f.pause, lookLimit)
		if f.doubt != nil {
			select {
			case f.trial <- f.doubt:
			default:
			}
		}
		f.ask()
	}
	if f.opts.Wait < 0 && !f.asking {
		f.news.raise() // they wait for no more than that
	}
	return waitInterval
}

// follow begins the time of another leader. f.mu is held.
func (f *finder) follow(identity string) {
	f.leader = &leader{identity: identity}
	f.leader.over, f.leader.end = context.WithCancel(context.Background())
	f.route, f.doubt, f.trouble = nil, nil, notSaid
	if identity == "" {
		f.trouble = &trouble{answer: "nobody leads at the moment"}
	}
	f.next, f.pause = time.Time{}, lookInterval
}

// use makes a route that of all requests. f.mu is held.
func (f *finder) use(to *route) {
	f.route, f.doubt, f.trouble = to, nil, notSaid
	f.news.raise()
}

// ask begins a look-up, unless one is under way. Many wait for it, so it does not end with a request. f.mu is held.
func (f *finder) ask() {
	if f.asking {
		return
	}
	f.asking, f.stale = true, time.Now().Add(checkInterval)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
		defer cancel()
		slice, err := f.slices.Get(ctx, f.opts.Name, metav1.GetOptions{})
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asking = false
		f.answered(slice, err)
	}()
}

// answered is the end of a look-up. A route that was found before stays, unless there is another one. f.mu is held.
func (f *finder) answered(slice *discoveryv1.EndpointSlice, err error) {
	found, why := f.read(slice, err)
	switch known := cmp.Or(f.route, f.doubt); {
	case found != nil && (known == nil || *known != *found):
		f.use(found)
	case found == nil && known == nil:
		f.trouble = why
	}
}

var cannotFind = &line{func(log klog.Logger, cause error) { log.Error(cause, "Cannot find the leader's address") }}

// read returns the route in an EndpointSlice, or why there is none. f.mu is held.
func (f *finder) read(slice *discoveryv1.EndpointSlice, err error) (*route, *trouble) {
	if err != nil {
		return nil, &trouble{log: cannotFind, cause: f.explain("get", err),
			answer: "the leader's address cannot be found; this replica's log has the reason"}
	}
	f.meet(slice)
	if f.leader.identity == "" || slice.Annotations[holderAnnotation] != f.leader.identity ||
		len(slice.Endpoints) == 0 || len(slice.Endpoints[0].Addresses) == 0 {
		return nil, notSaid
	}
	host := net.JoinHostPort(slice.Endpoints[0].Addresses[0], strconv.Itoa(int(f.portOf(slice))))
	if host == net.JoinHostPort(f.opts.Address, strconv.Itoa(int(*f.opts.Ports[0].Port))) {
		return nil, &trouble{answer: "this replica's term has just begun or ended"}
	}
	return &route{f.leader, host, f.guard(slice)}, nil
}
