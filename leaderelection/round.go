package leaderelection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
)

// A state is where a round stands between two electors: the Elector, which holds the Lease, and client-go's, which the
// callback belongs to.
type state int

const (
	campaigning state = iota // the Elector campaigns, and client-go waits in Get
	won                      // the Elector leads, and client-go has not heard of it
	led                      // client-go leads
	refused                  // client-go leads, and its last Update was refused, so that it may be about to stop
	unheard                  // the Elector is through with a term, and client-go has not stopped leading
	suspended                // client-go knows that it does not lead, and waits for its term
	missed                   // the Elector is through with such a term, and client-go waits
	left                     // client-go has stopped leading without a release, and the term goes on until it expires
	recalled                 // client-go campaigns anew after it has left, and its callback still runs
	released                 // client-go has released: the Lease goes once the callback has returned
	abandoned                // client-go has given its campaign up
	over                     // the Elector's Run has returned
)

// An event is what brings a round from one state into another.
type event int

const (
	wins     event = iota // the Elector's callback begins
	accepts               // client-go's Update takes the term, or keeps it
	refuses               // client-go's Update is refused
	suspends              // client-go is shown that it does not lead: see Lock.shows
	releases              // client-go's Update has no holder
	stops                 // client-go says that it has stopped leading
	resumes               // client-go campaigns anew, and may have the term again
	recalls               // client-go campaigns anew, and may not have it
	abandons              // client-go's campaign has ended
	ends                  // the Elector's Run returns
)

// transitions are all that can happen to a round. What is not there is refused, or has no effect.
var transitions = map[state]map[event]state{
	campaigning: {wins: won, abandons: abandoned, ends: over},
	won:         {accepts: led, abandons: abandoned, ends: over},
	led:         {accepts: led, refuses: refused, suspends: suspended, releases: released, stops: left, ends: unheard},
	refused:     {accepts: led, suspends: suspended, stops: left, ends: unheard},
	unheard:     {suspends: missed, stops: over},
	suspended:   {accepts: led, releases: released, stops: left, ends: missed},
	missed:      {stops: over},
	left:        {resumes: won, recalls: recalled, ends: over},
	recalled:    {ends: over},
	released:    {ends: over},
	abandoned:   {ends: over},
}

// A round is one Run of the Elector: a campaign, and a term if it is won. The lock's mu guards what changes.
type round struct {
	state state
	since time.Time          // of the state
	term  elector.Term       // once won
	ctx   context.Context    // of the term
	work  *work              // the callback, once client-go leads, if the lock is told of its end
	run   context.Context    // ends with client-go's Run, and when that is to end; nil until the callback has begun
	stop  context.CancelFunc // ends the Elector's Run
	ended chan struct{}      // closed when the Elector's Run has returned
}

// move makes a transition, and reports whether there is one. The caller holds mu.
func (l *Lock) move(r *round, e event) bool {
	to, ok := transitions[r.state][e]
	if !ok {
		return false
	}
	if to != r.state {
		r.state, r.since = to, time.Now()
		l.wake()
	}
	return true
}

// begin starts a campaign for the client-go elector whose acquire has the context ctx. The caller holds mu.
func (l *Lock) begin(ctx context.Context) *round {
	outer, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &round{stop: stop, ended: make(chan struct{})}
	l.round, l.reported = r, ""
	l.cutoff.on.Store(false)
	context.AfterFunc(ctx, func() { l.abandon(r) })
	go func() {
		_ = l.elector.Run(outer) // what it returns is a loss, which the callback has seen, or nil
		stop()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.move(r, ends)
		close(r.ended)
	}()
	return r
}

// abandon ends a campaign that client-go has given up, because its acquire has ended without a term, and reports whether
// it has.
func (l *Lock) abandon(r *round) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.move(r, abandons) {
		r.stop()
	}
	return r.state == abandoned
}

// leads reports whether client-go leads, as far as it knows.
func (r *round) leads() bool { return r.state == led || r.state == refused }

// valid reports whether client-go may go on leading. The caller holds mu.
func (l *Lock) valid(r *round) bool {
	if l.hides && r.leads() {
		return r.ctx.Err() == nil // be the term suspended: what ends it ends its ctx
	}
	return r.term.Valid() && r.ctx.Err() == nil && time.Until(r.term.ValidUntil()) > l.margin
}

// accept makes a term that is won, or valid again, client-go's, and reports whether it did.
func (l *Lock) accept(r *round) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.state != won && r.state != suspended || !l.valid(r) {
		return false
	}
	if l.joins && r.state == won {
		r.work = newWork()
	}
	l.reported = l.identity
	return l.move(r, accepts)
}

// release stops the Elector, which keeps the Lease while the callback drains, and returns when the Lease is released.
// Client-go asks for it after a loss too, before it ends the context of the callback: that is refused.
func (l *Lock) release(r *round) error {
	l.mu.Lock()
	if r.ctx == nil || r.ctx.Err() != nil || !l.move(r, releases) {
		l.mu.Unlock()
		return fmt.Errorf("leaderelection: not released: %w", elector.ErrNotLeader)
	}
	r.stop()
	l.mu.Unlock()
	return r.awaitRelease()
}

// awaitRelease waits for the Lease to be released, for as long as that can be, once the Elector is stopped.
func (r *round) awaitRelease() error {
	for until := r.term.ValidUntil(); time.Now().Before(until); until = r.term.ValidUntil() { // which renewals move on while the callback drains
		select {
		case <-r.ended:
			return nil
		case <-time.After(time.Until(until)):
		}
	}
	if r.work != nil && !r.work.running() && !r.work.early() {
		<-r.ended // as long as it takes: there is nothing that another leader could meet
		return nil
	}
	select {
	case <-r.ended:
		return nil
	default:
		return errors.New("leaderelection: the Lease could not be released in time; others wait until it expires")
	}
}

// resume takes up a term again that client-go had left, because it campaigns anew: as with its own lock, there is
// nobody to wait for but a callback that still runs. A term that is over ends first. The caller holds mu.
func (l *Lock) resume(ctx context.Context, r *round) {
	l.cutoff.on.Store(false)
	if l.valid(r) && !r.work.running() {
		l.move(r, resumes)
		context.AfterFunc(ctx, func() { l.abandon(r) })
		return
	}
	l.move(r, recalls)
}

// lead is the Elector's callback. It lasts for as long as somebody may work.
func (l *Lock) lead(ctx context.Context) error {
	l.mu.Lock()
	r := l.round
	r.ctx = ctx
	r.term, _ = elector.TermFrom(ctx)
	l.move(r, wins)
	l.mu.Unlock()
	ended := ctx.Done()
	var asked time.Time // when ctx ended
	for {
		l.mu.Lock()
		n, returned, changed := l.next(r, asked), r.work.end(), l.changed
		cut := n.cutOff && l.cutoff.on.CompareAndSwap(false, true)
		l.mu.Unlock()
		if cut {
			continue // what is next may depend on it
		}
		if n.leave {
			return nil
		}
		if n.exit {
			l.end(r)
		}
		if n.lose {
			r.stop()
		}
		later := make(<-chan time.Time)
		if !n.again.IsZero() {
			later = time.After(time.Until(n.again))
		}
		select {
		case <-ended:
			ended, asked = nil, time.Now()
		case <-returned:
		case <-changed:
		case <-later:
		}
	}
}

// next is what lead does next, and when it looks again if nothing happens. The zero value is to wait.
type next struct {
	leave  bool // return: the Lease is released, unless the term is lost or writes are cut off
	cutOff bool // let the Lease expire
	exit   bool // end the process
	lose   bool // a term that is suspended: nobody waits for it any more
	again  time.Time
}

// after is what then says from a time on, which is never if it is zero.
func after(from time.Time, then next) next {
	switch {
	case from.IsZero():
		return next{}
	case time.Now().Before(from):
		return next{again: from}
	}
	return then
}

// next decides what lead does. Asked is when the term's context ended, and zero before. The caller holds mu.
func (l *Lock) next(r *round, asked time.Time) next {
	running, unjoined := r.work.running(), r.work.deaf() || r.work.early()
	switch {
	case r.state == left && asked.IsZero() && l.cutoff.on.Load() && (l.shows || l.hides):
		return after(r.term.ValidUntil(), next{cutOff: true, lose: true})
	case r.state == recalled && running:
		return after(l.limit(r.since), next{cutOff: true})
	case r.state == recalled:
		return next{leave: true}
	case r.state == left && asked.IsZero() && running && unjoined:
		return after(r.since.Add(unheeded), next{cutOff: true})
	case r.state == left && asked.IsZero() && running:
		return after(l.limit(r.since), next{cutOff: true})
	case r.state == left && asked.IsZero():
		return next{cutOff: true}
	case asked.IsZero():
		return next{}
	case r.state == won || r.state == abandoned:
		return next{leave: true}
	case r.state == released && unjoined:
		return after(asked.Add(unheeded), next{leave: true})
	case running && l.exits && r.term.Valid(): // else it is lost, and OnOverrun ends the process
		return after(l.limit(asked), next{exit: true})
	case running:
		return next{}
	case r.state == released || r.work != nil && !unjoined:
		return next{leave: true}
	case l.overruns && !l.joins: // so that OnOverrun is called unless the process has ended, or client-go campaigns anew
		return next{cutOff: true}
	}
	// The term is over and its work may go on, because nobody can know when that has ended: the Lease is left to expire.
	return next{cutOff: true, leave: true}
}

// limit is when a drain that began at since has lasted for too long, and zero if it may last for ever.
func (l *Lock) limit(since time.Time) time.Time {
	if l.drainLimit == 0 {
		return time.Time{}
	}
	return since.Add(l.drainLimit)
}

// resignNotice is for how long others leave the Lease alone that a process has let go which ends itself: it is gone by then,
// whether its release was answered or not.
const resignNotice = 2 * time.Second

// end ends the process, because its callback has drained for DrainLimit and still runs. The term is valid, and is
// resigned with notice.
func (l *Lock) end(r *round) {
	l.ending.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), resignNotice/2)
		defer cancel()
		err := l.elector.Resign(ctx, resignNotice)
		die(resignNotice/4, func(log klog.Logger) {
			log.Error(err, "OnStartedLeading has not returned within DrainLimit of being asked to: this process ends, so that another replica can lead",
				"lease", l.name, "term", r.term, "drainLimit", l.drainLimit)
		})
	})
}
