package sim

import (
	"slices"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A watch is one request to watch the Lease, until its client has returned.
type watch struct {
	gen    uint32
	who    int32
	id     int
	open   bool // the server has accepted it
	closed bool // by the client
	ended  bool // it shows nothing more; its end may be on its way
	silent bool // what it shows does not arrive
	hung   bool // its client does not return
	done   bool // it has returned

	queue []shown
	head  int
	armed bool
	last  time.Duration // when the last of the queue arrives
}

// shown is what a watch brings.
type shown struct {
	at   time.Duration
	kind protocol.EventKind
	by   record
}

// openWatch takes a request to watch from the machine.
func (p *process) openWatch(id int) {
	w := p.world
	var wt *watch
	var i int32
	if n := len(w.spareWatches); n > 0 {
		i = w.spareWatches[n-1]
		w.spareWatches = w.spareWatches[:n-1]
		wt = w.watches[i]
		*wt = watch{gen: wt.gen + 1, queue: wt.queue[:0]}
	} else {
		wt = &watch{}
		w.watches, i = append(w.watches, wt), int32(len(w.watches))
	}
	f := p.draw()
	wt.who, wt.id, wt.hung = p.index, id, f.hung
	p.watches = append(p.watches, i)
	p.checkWatch()
	switch {
	case f.loseRequest || p.partition&outbound != 0:
	case f.refusal != noRefusal || p.forbid:
		wt.ended = true
		w.queueShown(i, f.late+f.lateReply, shown{kind: protocol.WatchEnded})
	default:
		w.push(event{at: w.now + f.late, kind: evOpen, who: p.index, arg: i, gen: wt.gen})
	}
}

// opens lets the server accept a watch. It begins with the Lease as it is.
func (w *world) opens(i int32) {
	wt := w.watches[i]
	p := w.processes[wt.who]
	if wt.closed || wt.ended || p.gone() || p.partition&outbound != 0 {
		return
	}
	wt.open, wt.silent = true, p.silence || p.partition&inbound != 0
	w.queueShown(i, p.oneWay(), shown{kind: protocol.WatchOpened})
	if w.server.exists {
		w.queueShown(i, p.oneWay(), shown{kind: protocol.WatchShowed, by: w.server.record})
	}
}

// show lets all watches show what has happened to the Lease.
func (w *world) show(kind protocol.EventKind, r *record) {
	for _, p := range w.alive {
		for _, i := range p.watches {
			wt := w.watches[i]
			if !wt.open || wt.ended || wt.closed {
				continue
			}
			after := p.oneWay()
			if p.weather.bad && p.net.hits(p.weather.late) {
				after += p.net.tail(longest)
			}
			wt.silent = wt.silent || p.silence || p.partition&inbound != 0
			w.queueShown(i, after, shown{kind: kind, by: *r})
		}
	}
}

// queueShown puts something behind what a watch still has to bring.
func (w *world) queueShown(i int32, after time.Duration, s shown) {
	wt := w.watches[i]
	s.at = max(w.now+after, wt.last)
	wt.last = s.at
	if wt.head > 0 && wt.head == len(wt.queue) {
		wt.queue, wt.head = wt.queue[:0], 0
	}
	wt.queue = append(wt.queue, s)
	w.armWatch(i)
}

func (w *world) armWatch(i int32) {
	wt := w.watches[i]
	if wt.armed || wt.silent || wt.head == len(wt.queue) {
		return
	}
	wt.armed = true
	w.push(event{at: max(wt.queue[wt.head].at, w.now), kind: evShow, who: wt.who, arg: i, gen: wt.gen})
}

// brings hands in what a watch shows.
func (p *process) brings(i int32) {
	w := p.world
	wt := w.watches[i]
	wt.armed = false
	if wt.done || wt.closed || wt.silent || wt.head == len(wt.queue) {
		return
	}
	if p.springs(momentEvent) {
		wt.armed = true
		p.mail = append(p.mail, event{kind: evShow, who: p.index, arg: i, gen: wt.gen})
		return
	}
	s := &wt.queue[wt.head]
	wt.head++
	ev := protocol.Event{Kind: s.kind, ID: wt.id}
	switch s.kind {
	case protocol.WatchEnded:
		if wt.hung && p.hang {
			wt.head--
			return
		}
		p.watchReturns(i)
		return
	case protocol.WatchShowed, protocol.WatchGone:
		ev.Record = s.by.Record
		p.showsHolder(&s.by, s.kind)
	}
	p.hand(ev)
	w.armWatch(i)
}

// hearsOthers lets the machine hear that the connection of its watch is alive: every third process has other elections, whose
// watches share it and are shown something all the time. It says nothing about the own one.
func (p *process) hearsOthers() {
	if p.index%3 != 0 || p.partition&inbound != 0 {
		return
	}
	for _, i := range p.watches {
		if wt := p.world.watches[i]; wt.open && !wt.closed && !wt.ended {
			p.hand(protocol.Event{Kind: protocol.Heard, ID: wt.id, At: p.clock.at(p.world.now)})
		}
	}
}

// closeWatch closes a watch for its client.
func (p *process) closeWatch(id int) {
	w := p.world
	for _, i := range p.watches {
		wt := w.watches[i]
		if wt.id != id || wt.closed {
			continue
		}
		wt.closed = true
		if !(wt.hung && p.hang) {
			w.push(event{at: w.now + p.net.upTo(time.Millisecond), kind: evUnwatched, who: p.index, arg: i, gen: wt.gen})
		}
	}
}

// watchReturns hands in that the client of a watch has returned.
func (p *process) watchReturns(i int32) {
	w := p.world
	wt := w.watches[i]
	if wt.done {
		return
	}
	wt.done = true
	p.watches = slices.DeleteFunc(p.watches, func(o int32) bool { return o == i })
	w.spareWatches = append(w.spareWatches, i)
	p.hand(protocol.Event{Kind: protocol.WatchEnded, ID: wt.id})
}

// endWatches lets the server, or the network, end the watches of a process.
func (p *process) endWatches(after time.Duration) {
	w := p.world
	for _, i := range p.watches {
		if wt := w.watches[i]; !wt.ended && !wt.closed {
			wt.ended, wt.silent = true, false
			w.queueShown(i, after, shown{kind: protocol.WatchEnded})
		}
	}
}

// resumeWatches lets those that were silent bring what they held back, or end, or be dead for good.
func (p *process) resumeWatches() {
	w := p.world
	for _, i := range p.watches {
		wt := w.watches[i]
		switch {
		case wt.closed && !wt.done:
			w.push(event{at: w.now + p.net.upTo(time.Millisecond), kind: evUnwatched, who: p.index, arg: i, gen: wt.gen})
		case wt.silent && !p.silence && !p.net.one(3):
			wt.silent = false
			w.armWatch(i)
		case !wt.silent:
			w.armWatch(i) // its end may have hung
		}
	}
}
