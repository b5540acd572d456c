package sim

import (
	"slices"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A request is one to the API, from when the machine has handed it out until its client has returned and nothing of it
// is on its way. Requests are used again.
type request struct {
	gen uint32
	who int32
	id  int // the machine's number of it
	ask protocol.Request

	handed, sent time.Duration // when it was handed out, and when it left
	at           protocol.Instant
	left         bool    // it has left the process
	told         bool    // the machine knows
	carried      bool    // the server has carried it out
	cancelled    bool    // its ctx has ended
	returned     bool    // its client has returned
	travels      int     // events about it on the heap
	twins        []int32 // copies of the process, which have decided on it, too

	fate  fate
	reply protocol.Event
	by    record // what the reply carries
}

// fate is what becomes of a request.
type fate struct {
	late, lateReply     time.Duration
	loseRequest         bool
	loseReply           bool
	deaf                bool // it goes on although its ctx has ended, and its client does not return before its reply
	unstoppable         bool // it is carried out although its ctx has ended, but its client returns
	hung                bool // its client does not return before the process is healed
	refusal             refusal
	carriedOutAnyway    bool // though the refusal does not say so
	retryAfter, limited time.Duration
}

type refusal uint8

const (
	noRefusal refusal = iota
	forbidden
	tooMany
	serverError // "request timed out": it may have been carried out
	gateway
	notConnected
	cutOff // the connection breaks
	timedOut
	refusals
)

func (r refusal) outcome() protocol.Outcome {
	switch r {
	case forbidden:
		return protocol.Refused
	case timedOut:
		return protocol.Unanswered
	default:
		return protocol.Failed
	}
}

// weather is how likely each fault of a request is, and how long answers take.
type weather struct {
	bad                                                                 bool // anything below is not zero
	late, loseRequest, loseReply, refuse, ignore, limiter, cut, overrun float64
	slow                                                                time.Duration // every answer comes later by this
}

// A partition is what a process is cut off from.
type partition uint8

const (
	outbound partition = 1 << iota // nothing that it sends arrives
	inbound                        // nothing arrives at it
)

// link is the network of a process.
type link struct {
	weather
	partition partition
	latency   time.Duration // one way, at the most
	silence   bool          // its watches show nothing
	forbid    bool          // it may not watch
	hang      bool          // half of its requests do not return
}

const usualLatency = 3 * time.Millisecond

// longest is the longest that a request is late.
const longest = 20 * time.Second

// oneWay is how long something takes that is not late.
func (p *process) oneWay() time.Duration { return p.latency/4 + p.net.upTo(p.latency) }

// draw draws what becomes of a request.
func (p *process) draw() (f fate) {
	f.late, f.lateReply = p.oneWay(), p.oneWay()
	w := &p.weather
	if p.hang {
		f.hung = p.net.one(2)
	}
	if !w.bad {
		return f
	}
	d := &p.net
	if d.hits(w.late) {
		f.late += d.tail(longest)
	}
	if d.hits(w.late) {
		f.lateReply += d.tail(longest)
	}
	if d.hits(w.limiter) {
		f.limited = d.tail(longest)
	}
	f.lateReply += w.slow
	f.loseRequest, f.loseReply = d.hits(w.loseRequest), d.hits(w.loseReply)
	f.deaf, f.unstoppable = d.hits(w.ignore), d.hits(w.overrun)
	if d.hits(w.refuse) {
		f.refusal = refusal(1 + d.n(int64(refusals-1)))
	} else if d.hits(w.cut) {
		f.refusal = cutOff
	}
	if f.refusal == tooMany {
		f.retryAfter = time.Duration(1+d.n(4)) * time.Second
	}
	f.carriedOutAnyway = f.refusal >= serverError && f.refusal != notConnected && d.one(2)
	return f
}

// request returns a request to use.
func (w *world) request() (*request, int32) {
	if n := len(w.spare); n > 0 {
		i := w.spare[n-1]
		w.spare = w.spare[:n-1]
		q := w.requests[i]
		*q = request{gen: q.gen + 1}
		return q, i
	}
	w.requests = append(w.requests, &request{})
	return w.requests[len(w.requests)-1], int32(len(w.requests) - 1)
}

// travel plans the next event of a request.
func (w *world) travel(kind eventKind, i int32, after time.Duration) {
	q := w.requests[i]
	q.travels++
	w.push(event{at: w.now + after, kind: kind, who: q.who, arg: i, gen: q.gen})
}

// letGo gives a request back once nothing of it is left.
func (w *world) letGo(i int32) {
	q := w.requests[i]
	if q.travels > 0 || !q.returned && !w.processes[q.who].gone() {
		return
	}
	p := w.processes[q.who]
	if n := slices.Index(p.requests, i); n >= 0 {
		p.requests = slices.Delete(p.requests, n, n+1)
		w.spare = append(w.spare, i)
	}
}

// send takes a request from the machine.
func (p *process) send(id int, ask *protocol.Request) {
	w := p.world
	q, i := w.request()
	q.who, q.id, q.ask, q.handed = p.index, id, *ask, w.now
	q.at, q.fate = p.clock.at(w.now), p.draw()
	p.requests = append(p.requests, i)
	p.checkSend(q)
	if ask.Verb != protocol.Get {
		p.asks(ask.Claim)
	}
	if q.fate.limited > 0 || p.asleep {
		w.travel(evLeave, i, q.fate.limited)
		return
	}
	p.leaves(i)
}

// leaves lets a request leave the process.
func (p *process) leaves(i int32) {
	w := p.world
	q := w.requests[i]
	if q.cancelled && !q.fate.deaf {
		p.returns(i, protocol.Event{Outcome: protocol.Unanswered})
		return
	}
	if !q.told {
		q.told = true
		if p.cfg.Traces {
			q.at = p.clock.at(w.now)
			p.hand(protocol.Event{Kind: protocol.Left, ID: q.id, At: q.at})
		}
		if p.springs(momentLeave) { // its time was read, and it has not left
			w.travel(evLeave, i, 0)
			return
		}
	}
	q.left, q.sent = true, w.now
	switch {
	case q.fate.loseRequest || p.partition&outbound != 0:
	case q.fate.refusal == notConnected:
		q.reply = protocol.Event{Outcome: protocol.Failed}
		w.travel(evReply, i, q.fate.late)
	default:
		w.travel(evArrive, i, q.fate.late)
	}
}

// arrives lets a request come to the server, whatever has become of its process.
func (w *world) arrives(i int32) {
	q := w.requests[i]
	p := w.processes[q.who]
	if q.cancelled && !q.fate.deaf && !q.fate.unstoppable || p.partition&outbound != 0 && !p.gone() {
		return
	}
	f := &q.fate
	if f.refusal == noRefusal || f.carriedOutAnyway {
		w.carryOut(q)
	}
	if f.refusal != noRefusal {
		q.reply = protocol.Event{Outcome: f.refusal.outcome(), RetryAfter: f.retryAfter}
	}
	if !f.loseReply && p.partition&inbound == 0 {
		w.travel(evReply, i, f.lateReply)
	}
}

// carryOut lets the server answer.
func (w *world) carryOut(q *request) {
	before := w.server.record
	a := w.server.serve(q, w.now)
	q.carried = true
	q.reply = protocol.Event{Outcome: a.outcome, Record: a.record.Record}
	q.by = a.record
	w.note(noteServed, q.who, int64(a.outcome), int64(a.record.Version), q.ask.Claim.Renewed, a.record.Holder)
	if a.changed {
		w.checkWrite(q, before)
		w.show(protocol.WatchShowed, &w.server.record)
	}
}

// replies lets a reply come to the process.
func (p *process) replies(i int32) {
	q := p.world.requests[i]
	if q.returned || q.fate.hung && p.hang {
		return
	}
	if p.springs(momentReply) {
		p.mail = append(p.mail, event{kind: evReply, who: p.index, arg: i, gen: q.gen})
		q.travels++
		return
	}
	p.returns(i, q.reply)
}

// returns lets the client return.
func (p *process) returns(i int32, ev protocol.Event) {
	q := p.world.requests[i]
	if q.returned {
		return
	}
	q.returned = true
	ev.Kind, ev.ID = protocol.Answered, q.id
	if !q.cancelled && ev.Outcome == protocol.OK {
		p.sees(&q.by)
	}
	p.hand(ev)
}

// cancel ends a request's ctx.
func (p *process) cancel(id int) {
	w := p.world
	for _, i := range p.requests {
		q := w.requests[i]
		if q.id != id || q.returned || q.cancelled {
			continue
		}
		q.cancelled = true
		if !(q.fate.hung && p.hang) && !q.fate.deaf {
			w.travel(evCancelled, i, p.net.upTo(time.Millisecond))
		}
	}
}

// suspect is told that a connection may be dead. Half of the time it is closed.
func (p *process) suspect(id int) {
	if p.net.one(2) {
		return
	}
	w := p.world
	for _, i := range p.requests {
		if w.requests[i].id == id {
			p.closeLink(w.requests[i].ask.Spare)
			return
		}
	}
	p.closeLink(false)
}

// closeLink closes a connection: what is under way on it comes back with an error, carried out or not.
func (p *process) closeLink(spare bool) {
	w := p.world
	for _, i := range p.requests {
		q := w.requests[i]
		if q.ask.Spare != spare || !q.left || q.returned || q.cancelled || q.fate.hung && p.hang {
			continue
		}
		if !q.carried && p.net.one(2) {
			q.fate.refusal, q.fate.carriedOutAnyway = cutOff, false
		}
		q.reply = protocol.Event{Outcome: protocol.Failed}
		q.fate.loseReply = true
		w.travel(evReply, i, p.net.upTo(time.Millisecond))
	}
	if !spare {
		p.endWatches(p.net.upTo(time.Millisecond))
	}
}

// heal makes the network of a process good again, as far as what says.
func (p *process) heal(everything bool) {
	p.link = link{latency: usualLatency, forbid: p.forbid, silence: p.silence && !everything}
	w := p.world
	for _, i := range p.requests {
		q := w.requests[i]
		if !q.returned && q.cancelled {
			w.travel(evCancelled, i, p.net.upTo(time.Millisecond))
		} else if !q.returned && q.fate.hung && q.travels == 0 {
			if !q.carried {
				q.reply = protocol.Event{Outcome: protocol.Failed}
			}
			w.travel(evReply, i, p.net.upTo(time.Millisecond))
		}
	}
	p.resumeWatches()
	if everything {
		p.endWatches(p.oneWay())
	}
}
