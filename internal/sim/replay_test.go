package sim

import (
	"encoding/binary"
	"testing"
	"time"
)

// TestASeedReplays plays a hundred seeds twice: event by event, all has to be the same.
func TestASeedReplays(t *testing.T) {
	same := 0
	for seed := uint64(1); seed <= 100; seed++ {
		a, b := Run(NewPlan(seed, 10*time.Minute)), Run(NewPlan(seed, 10*time.Minute))
		if a.Hash == b.Hash && a.Tally.Events == b.Tally.Events && a.Tally.Events > 0 {
			same++
		}
	}
	if same != 100 {
		t.Errorf("%d of 100 seeds replay", same)
	}
}

// TestPlansDiffer checks that the hash of what happens is not that of nothing.
func TestPlansDiffer(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := uint64(1); seed <= 20; seed++ {
		seen[Run(NewPlan(seed, 5*time.Minute)).Hash] = true
	}
	if len(seen) != 20 {
		t.Errorf("20 seeds have come to %d different ends", len(seen))
	}
}

// TestAFaultTakenAwayLeavesTheOthers checks what Shrink rests on: the faults that are left happen as before, until the one
// that was taken away.
func TestAFaultTakenAwayLeavesTheOthers(t *testing.T) {
	plan := NewPlan(7, 20*time.Minute)
	short := *plan
	cut := len(plan.Faults) / 2
	short.Faults = append(append([]Fault(nil), plan.Faults[:cut]...), plan.Faults[cut+1:]...)
	before := plan.Faults[cut].At - 1
	plan.Length, short.Length = before, before
	if a, b := Run(plan), Run(&short); a.Hash != b.Hash || a.Tally.Faults != cut {
		t.Errorf("before the fault that was taken away all is different: %d and %d faults", a.Tally.Faults, b.Tally.Faults)
	}
}

// TestShrinkKeepsWhatFails gives Shrink a rule that one kind of fault breaks: that one has to be left, and no other.
func TestShrinkKeepsWhatFails(t *testing.T) {
	plan := NewPlan(11, 20*time.Minute)
	plan.breaks = Delete
	r := Run(plan)
	if r.Failure == nil {
		t.Fatal("the plan deletes nothing")
	}
	left, again := Shrink(plan, r)
	if len(left.Faults) != 1 || left.Faults[0].Kind != Delete || again.Failure == nil {
		t.Errorf("what is left: %v, %v", left.Faults, again.Failure)
	}
}

// FuzzElection lets Go's fuzzer choose the faults.
//
//	go test ./internal/sim -run '^$' -fuzz FuzzElection
func FuzzElection(f *testing.F) {
	for seed := range uint64(8) {
		d := diceFor(seed, diceFaults)
		data := binary.BigEndian.AppendUint64(nil, seed)
		for range 40 {
			data = binary.BigEndian.AppendUint32(data, uint32(d.next()))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1000 {
			return
		}
		plan := PlanOf(data)
		if r := Run(plan); r.Failure != nil {
			p, r := Shrink(plan, r)
			t.Fatalf("%v\nfaults: %v\nthe last events:\n%s", r.Failure, p.Faults, r.Timeline(200))
		}
	})
}
