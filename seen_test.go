package elector

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// S1: what a record that shows this candidate's own write proves, if the reply was lost.
func TestAWriteThatIsSeenToHaveBeenAppliedCountsFromWhenItWasFirstSent(t *testing.T) {
	won := record{version: 1, holder: "me", seconds: 15, acquired: 1001, renewed: 1002}
	renewal := record{version: 2, holder: "me", seconds: 15, acquired: 1001, renewed: 3001}
	edited, stranger, cut := renewal, renewal, renewal
	edited.seconds, stranger.holder, cut.renewed = 60, "them", 3000

	before := observed{}.see(won.lease(), time.Time{}, at(0))
	own := tenure{phase: leading, wrote: before.claim, sent: at(0)}
	own = own.sending(before, renew, claimOf(renewal.lease()), at(2*s))
	own = own.sending(before, renew, claimOf(renewal.lease()), at(4*s)) // the repetition: either may have been applied
	assert.Equal(t, at(2*s), own.doubtedSent)

	for _, c := range []struct {
		name  string
		seen  record
		phase phase
		want  bool
	}{
		{"just as it was written", renewal, leading, true},
		{"while the callback drains", renewal, draining, true},
		{"the record before it", won, leading, false},
		{"edited since", edited, leading, false},
		{"its times cut", cut, leading, false},
		{"another's", stranger, leading, false},
		{"standing by, where one more write makes it certain", renewal, standingBy, false},
		{"releasing", renewal, releasing, false},
	} {
		own.phase = c.phase
		o := before.see(c.seen.lease(), at(5*s), at(6*s))
		assert.Equal(t, c.want, own.saw(o, "me").seenApplied(o), c.name)
	}

	own.phase, own.overtaken = leading, true
	o := before.see(renewal.lease(), at(5*s), at(6*s))
	assert.False(t, own.seenApplied(o), "another's record was seen in between")
}
