package sim

import (
	"fmt"
	"time"
)

// A Plan is what happens in a run: all of it follows from a seed, or from the bytes that a fuzzer chooses.
type Plan struct {
	Seed    uint64 // of all dice
	Length  time.Duration
	Size    int   // how many processes are to be alive
	Twins   bool  // some of them may share a name
	Fastest int64 // the rate of the fastest clock
	Timing  int   // the durations that most of them use
	Others  int   // those that the others use
	Faults  []Fault

	breaks FaultKind // for tests: a fault of this kind counts as a failure; Calm for none
}

// A Fault is one thing that happens to the world.
type Fault struct {
	At     time.Duration
	Kind   FaultKind
	Leader bool   // to the leader, if there is one
	Pick   uint32 // otherwise to whom
	Roll   uint64 // the seed of whatever else is to be chosen
}

// String describes a fault.
func (f Fault) String() string {
	who := fmt.Sprint(f.Pick)
	if f.Leader {
		who = "the leader"
	}
	return fmt.Sprintf("%14v %s (%s, %x)", f.At, f.Kind, who, f.Roll)
}

// NewPlan is the plan of a seed.
func NewPlan(seed uint64, length time.Duration) *Plan {
	p := &Plan{Seed: seed, Length: length}
	d := diceFor(seed, diceWorld)
	p.drawWorld(&d)
	faults := diceFor(seed, diceFaults)
	p.draw(func() (uint64, bool) { return faults.next(), true })
	return p
}

// PlanOf is the plan that bytes make: eight for the seed, then four for each fault.
func PlanOf(data []byte) *Plan {
	var seed uint64
	for i := range min(len(data), 8) {
		seed = seed<<8 | uint64(data[i])
	}
	data = data[min(len(data), 8):]
	p := &Plan{Seed: seed, Length: time.Hour}
	d := diceFor(seed, diceWorld)
	p.drawWorld(&d)
	p.draw(func() (uint64, bool) {
		if len(data) < 4 {
			return 0, false
		}
		d := dice{uint64(data[0])<<24 | uint64(data[1])<<16 | uint64(data[2])<<8 | uint64(data[3])}
		data = data[4:]
		return d.next(), true
	})
	p.Length = p.Faults[len(p.Faults)-1].At + p.calmLength()
	return p
}

func (p *Plan) drawWorld(d *dice) {
	p.Size = 2 + int(d.n(4))
	p.Twins = d.one(2)
	p.Fastest = []int64{usualRate, usualRate, usualRate * 11 / 10, usualRate * 5 / 4}[d.n(4)]
	p.Timing = pickTiming(d)
	if p.Others = p.Timing; d.one(2) {
		p.Others = pickTiming(d)
	}
}

// draw draws faults: storms, with a calm after each.
func (p *Plan) draw(next func() (uint64, bool)) {
	gap := timings[p.Timing].lease / 2
	for at := time.Duration(0); at < p.Length; {
		n, more := next()
		for range 5 + n%24 {
			var roll uint64
			if roll, more = next(); !more {
				break
			}
			d := dice{roll}
			if d.one(3) { // one misfortune after the other
				at += d.about(500 * time.Millisecond)
			} else {
				at += d.about(gap * 4 / 3)
			}
			p.Faults = append(p.Faults, Fault{At: at, Kind: pickFault(&d), Leader: d.one(2), Pick: uint32(d.n(1 << 16)), Roll: d.next()})
		}
		at += gap
		p.Faults = append(p.Faults, Fault{At: at, Kind: Calm, Roll: n})
		at += p.calmLength()
		if !more {
			return
		}
	}
}
