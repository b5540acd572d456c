package sim

import (
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// FaultKind is what kind of fault happens.
type FaultKind uint8

// The faults.
const (
	Calm FaultKind = iota // everything is healed
	Partition
	Heal
	Weather
	Slow
	Silence
	CloseWatches
	Forbid
	Stop
	Crash
	StepDown
	Edit
	Suspend
	Ambush
	Sick
	Annotate
	Rewrite
	Restore
	Hang
	Delete
	SetWall
	Away
	Resign
	Copy
	faultKinds
)

// faults are how often each kind happens, what it is called, and what it does.
var faults = [faultKinds]struct {
	weight int64
	name   string
	do     func(w *world, f *Fault, p *process, d *dice)
}{
	Calm:         {0, "calm", func(w *world, f *Fault, _ *process, _ *dice) { w.calm(f) }},
	Partition:    {3, "partition", doPartition},
	Heal:         {3, "healed", func(_ *world, _ *Fault, p *process, _ *dice) { p.heal(false) }},
	Weather:      {5, "bad weather", doWeather},
	Slow:         {2, "slow network", func(_ *world, _ *Fault, p *process, d *dice) { p.latency = 1 + d.about(150*time.Millisecond) }},
	Silence:      {2, "watches silenced or healed", doSilence},
	CloseWatches: {2, "watches closed", func(_ *world, _ *Fault, p *process, _ *dice) { p.endWatches(p.oneWay()) }},
	Forbid:       {1, "watches forbidden or allowed", func(_ *world, _ *Fault, p *process, _ *dice) { p.forbid = !p.forbid }},
	Stop:         {1, "stopped", func(_ *world, _ *Fault, p *process, _ *dice) { p.interrupt() }},
	Crash:        {2, "crashed", func(_ *world, _ *Fault, p *process, _ *dice) { p.kill() }},
	StepDown:     {2, "asked to step down", func(_ *world, _ *Fault, p *process, _ *dice) { p.hand(protocol.Event{Kind: protocol.StepDown}) }},
	Edit:         {4, "the Lease is edited", doEdit},
	Suspend:      {2, "suspended", doSuspend},
	Ambush:       {4, "to be suspended", doAmbush},
	Sick:         {2, "unfit, or fit again", func(_ *world, _ *Fault, p *process, _ *dice) { p.sicken(!p.sick) }},
	Annotate:     {3, "the Lease is annotated", doAnnotate},
	Rewrite:      {3, "the Lease is rewritten", doRewrite},
	Restore:      {3, "the server is restored", doRestore},
	Hang:         {1, "requests hang", func(_ *world, _ *Fault, p *process, _ *dice) { p.hang = true }},
	Delete:       {4, "the Lease is deleted", doDelete},
	SetWall:      {1, "the wall clock is set", doSetWall},
	Resign:       {1, "resigns", func(_ *world, _ *Fault, p *process, d *dice) { p.resign(d) }},
	Copy:         {1, "copied", doCopy},
	Away:         {1, "nobody reaches the server", func(w *world, _ *Fault, _ *process, d *dice) { w.away(d.upTo(20 * time.Second)) }},
}

// String names the kind.
func (k FaultKind) String() string { return faults[k].name }

func pickFault(d *dice) FaultKind {
	sum := int64(0)
	for i := range faults {
		sum += faults[i].weight
	}
	n := d.n(sum)
	for i := range faults {
		if n -= faults[i].weight; n < 0 {
			return FaultKind(i)
		}
	}
	panic("no fault")
}

// mischief lets the fault i happen.
func (w *world) mischief(i int) {
	f := &w.plan.Faults[i]
	if i+1 < len(w.plan.Faults) {
		w.push(event{at: w.plan.Faults[i+1].At, kind: evFault, arg: int32(i + 1)})
	}
	w.tally.Faults++
	if f.Kind != Calm {
		w.storm = true
	}
	w.server.snapshot()
	p := w.victim(f)
	if p == nil {
		return
	}
	w.note(noteFault, p.index, int64(f.Kind), int64(i), int64(w.server.Version), w.server.Holder)
	if f.Kind == w.plan.breaks && f.Kind != Calm {
		w.fail("test", "%v", f.Kind)
	}
	d := dice{f.Roll}
	faults[f.Kind].do(w, f, p, &d)
	if f.Kind != Calm {
		w.giveCopiesTime()
	}
}

// victim is to whom a fault happens, nil if nobody is alive.
func (w *world) victim(f *Fault) *process {
	if p := w.leading(); p != nil && f.Leader {
		return p
	}
	if len(w.alive) == 0 {
		return nil
	}
	return w.alive[int(f.Pick)%len(w.alive)]
}

// interrupt stops a process, as SIGTERM does.
func (p *process) interrupt() {
	p.world.push(event{at: p.world.now, kind: evStop, who: p.index})
}

func doPartition(_ *world, _ *Fault, p *process, d *dice) { p.partition = partition(1 + d.n(3)) }

func doWeather(_ *world, _ *Fault, p *process, d *dice) {
	often := func() float64 { return max(0, d.unit()*1.2-0.4) }
	p.weather = weather{bad: true, late: often(), loseRequest: often() / 2, loseReply: often() / 2, refuse: often(), ignore: often() / 5, limiter: often() / 3, cut: often() / 3, overrun: often() / 2}
	switch d.n(5) {
	case 0:
		p.weather = weather{bad: true, refuse: 1}
	case 1:
		p.weather = weather{bad: true, slow: d.upTo(p.cfg.LeaseDuration / 2)}
	case 2:
		p.weather = weather{bad: true, limiter: 1}
	}
}

func doSilence(_ *world, _ *Fault, p *process, d *dice) {
	p.silence = d.n(3) > 0
	if !p.silence {
		p.resumeWatches()
	}
}

// doSuspend suspends from a millisecond to minutes.
func doSuspend(_ *world, _ *Fault, p *process, d *dice) {
	length, still := d.tail(200*time.Second), d.one(2)
	p.suspend(length, still)
}

func doAmbush(_ *world, _ *Fault, p *process, d *dice) {
	p.ambush = ambush{moment: momentSend + moment(d.n(int64(moments-momentSend))), length: d.tail(200 * time.Second), still: d.one(2)}
	if p.moment == momentStep || p.moment == momentEvent {
		p.skip = int(d.n(4))
	}
}

func doSetWall(w *world, _ *Fault, p *process, d *dice) {
	by := d.tail(200 * time.Second)
	if d.one(2) {
		by = -by
	}
	if by < 0 && p.asleep {
		return // see setBack
	}
	if by < 0 {
		p.setBack = w.now
	}
	p.clock.step(w.now, by)
	p.stepped = w.now
	w.push(event{at: w.now + noticingWall + time.Millisecond, kind: evGuard, who: p.index, gen: p.term.gen})
}

// away keeps everybody from the server for a while.
func (w *world) away(d time.Duration) {
	w.awayUntil = w.now + d
	for _, p := range w.alive {
		p.endWatches(p.oneWay())
	}
}

// cutOff now and then keeps the leader from hearing of what is about to happen to the Lease.
func (w *world) cutOff(d *dice) {
	if p := w.leading(); p != nil && !d.one(3) {
		p.partition = outbound | inbound
	}
}

// edit lets somebody outside the election write a claim.
func (w *world) edit(c protocol.Claim) {
	w.server.edit(c)
	w.changed(edited)
}

// changed follows from a change of the claim by somebody outside the election.
func (w *world) changed(kind changeKind) {
	c := &w.server.Claim
	if c.Holder == "" && c.Renewed != 0 && (c.Seconds <= 1 || c.Acquired == c.Renewed) {
		kind = freed
	}
	w.outside(kind)
	w.show(protocol.WatchShowed, &w.server.record)
}

// doEdit changes whose the Lease is, or how long it binds.
func doEdit(w *world, _ *Fault, p *process, d *dice) {
	if !w.server.exists {
		return
	}
	c := w.server.Claim
	micros := (int64(wallEpoch) + int64(w.now)) / 1000
	switch d.n(18) {
	case 0, 1, 2:
		w.server.change() // labels
		w.show(protocol.WatchShowed, &w.server.record)
		return
	case 3, 4, 5:
		c.Holder = "stranger"
	case 6, 7, 8:
		c.Holder = p.identity
	case 9, 10, 11:
		c.Holder = ""
	case 15:
		c.Holder, c.Seconds, c.Renewed = "", 1, micros // just like a release
	case 16, 17: // somebody renews it in the holder's name, for a shorter time
		w.cutOff(d)
		for range 1 + d.n(2) {
			micros++
			c.Seconds, c.Renewed = int32(2+d.n(3)), micros
			w.edit(c)
		}
		return
	default:
		c.Seconds = int32(1 + d.n(40))
	}
	w.cutOff(d)
	w.edit(c)
}

// doRewrite changes the times: another client cuts their digits off, leaves them out, or puts an older state back.
func doRewrite(w *world, _ *Fault, _ *process, d *dice) {
	s := &w.server
	if !s.exists || s.Holder == "" {
		return
	}
	c := s.Claim
	switch d.n(4) {
	case 0:
		c.Acquired, c.Renewed = c.Acquired/1000*1000, c.Renewed/1000*1000
		w.cutOff(d)
		w.edit(c)
	case 1:
		c.Acquired, c.Renewed = 0, 0
		w.cutOff(d)
		w.edit(c)
	default:
		w.putBack(d)
	}
}

// putBack puts an older state of the same Lease back, most often one of the same term.
func (w *world) putBack(d *dice) {
	s, any := &w.server, d.one(3)
	for i := len(s.past) - 1; i >= 0; i-- {
		old := s.past[i]
		if old.UID != s.UID || old.Claim == s.Claim || !any && (old.Holder != s.Holder || old.Acquired != s.Acquired) || !d.one(3) {
			continue
		}
		w.cutOff(d)
		s.putBack(&old)
		w.changed(rewritten)
		return
	}
}

// doAnnotate asks the holder to step down, for anybody, for somebody, or for somebody who does not exist (L8).
func doAnnotate(w *world, _ *Fault, p *process, d *dice) {
	if !w.server.exists {
		return
	}
	w.server.Asked, w.server.To = true, []string{"", p.identity, "nobody"}[d.n(3)]
	w.server.change()
	w.show(protocol.WatchShowed, &w.server.record)
}

func doDelete(w *world, _ *Fault, _ *process, d *dice) {
	if !w.server.exists {
		return
	}
	w.cutOff(d)
	gone := w.server.drop()
	w.outside(deleted)
	w.show(protocol.WatchGone, &gone)
}

// doRestore takes the server back to an older state.
func doRestore(w *world, _ *Fault, _ *process, d *dice) {
	w.cutOff(d)
	if !w.server.restore(int(d.n(6))) {
		return
	}
	w.outside(restored)
	if w.server.exists && d.one(3) {
		w.server.change() // labels: it is not known by its version any more
	}
	away := time.Duration(0)
	if d.one(2) {
		away = d.upTo(20 * time.Second)
	}
	w.away(away)
}
