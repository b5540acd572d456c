package sim

import (
	"strconv"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// timings are durations that people use, the usual ones most often.
var timings = []struct {
	weight              int64
	lease, renew, retry time.Duration
}{
	{55, 15 * time.Second, 10 * time.Second, 2 * time.Second},
	{10, 8 * time.Second, 5 * time.Second, time.Second},
	{13, 30 * time.Second, 20 * time.Second, 4 * time.Second},
	{12, 60 * time.Second, 40 * time.Second, 10 * time.Second},
	{10, 137 * time.Second, 107 * time.Second, 26 * time.Second},
}

// pickTiming returns the number of one of timings.
func pickTiming(d *dice) int {
	n := d.n(100)
	for i, t := range timings {
		if n -= t.weight; n < 0 {
			return i
		}
	}
	return 0
}

// The names of dice.
const (
	diceWorld uint64 = iota
	diceFaults
	diceJoin
	diceNet
	diceScript
	diceLuck
)

// join lets a process begin in a slot.
func (w *world) join(n int) {
	s := &w.slots[n]
	if s.taken || w.now > w.plan.Length {
		return
	}
	s.taken = true
	s.runs++
	seed := func(name uint64) dice { return diceFor(w.plan.Seed, name, uint64(n), s.runs) }
	d := seed(diceJoin)
	p := &process{world: w, index: int32(len(w.processes)), slot: n, net: seed(diceNet), script: seed(diceScript), luck: seed(diceLuck)}
	p.family = p.index + 1
	p.link.latency, p.joined, p.woke = usualLatency, w.now, w.now
	p.identity = w.name(n, &d)
	p.cfg = w.config(p.identity, &d)
	p.clock = clock{since: w.now, mono: time.Second + d.upTo(time.Hour), wall: wallEpoch + w.now + d.upTo(time.Minute), rate: usualRate}
	if d.one(2) {
		p.clock.rate = w.fastest
	}
	p.forbid, p.listens = d.one(4), d.one(3)
	p.place = w.placeFor(s, &d)
	p.machine = protocol.New(p.cfg, func(n int64) int64 { return p.luck.n(n) })
	w.processes, w.alive = append(w.processes, p), append(w.alive, p)
	w.quiet = false
	w.note(noteJoins, p.index, p.clock.rate, int64(p.cfg.LeaseDuration/time.Second), int64(p.cfg.DrainLimit/time.Second), p.identity)
	p.tryLock()
	p.hand(protocol.Event{Kind: protocol.Tick})
}

// name is that of the slot, as in a StatefulSet; or a new one, as in a Deployment; or that of another slot.
func (w *world) name(n int, d *dice) string {
	switch {
	case w.plan.Twins && d.one(2):
		n = int(d.n(int64(len(w.slots))))
	case d.one(2):
		return "r" + strconv.Itoa(n) + "_" + strconv.Itoa(len(w.processes))
	}
	return "r" + strconv.Itoa(n)
}

func (w *world) config(identity string, d *dice) protocol.Config {
	t := timings[w.plan.Timing]
	if d.one(3) {
		t = timings[w.plan.Others]
	}
	c := protocol.Config{Identity: identity, LeaseDuration: t.lease, RenewDeadline: t.renew, RetryPeriod: t.retry, Traces: !d.one(4), Yields: d.one(6)}
	if d.one(8) {
		c.DrainLimit = 5*time.Second + d.upTo(40*time.Second)
	}
	if d.one(5) {
		c.Recovery = d.upTo(2 * time.Minute)
	}
	return c
}

// placeFor is the StateDir that a process finds: none, a new one, that of the process before it, or that of another slot,
// which is most likely locked.
func (w *world) placeFor(s *slot, d *dice) *place {
	switch n := d.n(10); {
	case n < 2:
		return nil
	case n < 3 && w.slots[0].place != nil:
		return w.slots[0].place
	case n < 5 || s.place == nil:
		s.place = &place{}
	}
	return s.place
}

// name is that of a process, in a timeline.
func (p *process) name() string { return p.identity + "#" + strconv.Itoa(int(p.index)) }
