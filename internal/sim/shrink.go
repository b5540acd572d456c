package sim

import "slices"

// Shrink takes faults away from a plan for as long as it still breaks the same rule (ddmin). It returns what is left, and
// what that comes to.
func Shrink(plan *Plan, failed Result) (*Plan, Result) {
	fails := func(faults []Fault) (*Plan, Result, bool) {
		p := *plan
		p.Faults, p.Length = faults, failed.Failure.At+plan.calmLength()
		r := Run(&p)
		return &p, r, r.Failure != nil && r.Failure.Rule == failed.Failure.Rule
	}
	best, result := plan, failed
	faults := slices.Clone(plan.Faults)
	for i, f := range faults {
		if f.At > failed.Failure.At {
			faults = faults[:i]
			break
		}
	}
	for size := (len(faults) + 1) / 2; size > 0; {
		taken := false
		for from := 0; from < len(faults); {
			rest := slices.Concat(faults[:from], faults[min(from+size, len(faults)):])
			if p, r, ok := fails(rest); ok {
				best, result, faults, taken = p, r, rest, true
			} else {
				from += size
			}
		}
		if !taken {
			size /= 2
		}
	}
	return best, result
}
