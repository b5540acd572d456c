package elector_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// What settings in use elsewhere promise here.
func ExampleOptions_Promise() {
	for _, s := range [][3]time.Duration{{15, 10, 2}, {137, 107, 26}, {35, 30, 5}, {10, 10, 2}} {
		p, err := elector.Options{LeaseDuration: s[0] * time.Second, RenewDeadline: s[1] * time.Second, RetryPeriod: s[2] * time.Second}.Promise()
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%d/%d/%d: %v\n", s[0], s[1], s[2], p)
	}
	// Output:
	// 15/10/2: outage survived 8s, stop budget 5s, takeover 15s after a crashed leader's last renewal, clock rates up to 50 % apart (20 % if half of the stop budget is used), requests a minute: leader 30, standby 0 (30 without watch)
	// 137/107/26: outage survived 1m21s, stop budget 30s, takeover 2m17s after a crashed leader's last renewal, clock rates up to 28 % apart (12 % if half of the stop budget is used), requests a minute: leader 2.31, standby 0 (2.31 without watch)
	// 35/30/5: outage survived 25s, stop budget 5s, takeover 35s after a crashed leader's last renewal, clock rates up to 17 % apart (8 % if half of the stop budget is used), requests a minute: leader 12, standby 0 (12 without watch)
	// elector: Options.RenewDeadline: 10s: must be less than LeaseDuration (10s): the difference is the time Run has to stop; set both, or neither (the defaults are 10s and 15s)
}

func TestWhatAPromiseSaysIsTrue(t *testing.T) {
	for _, o := range []elector.Options{
		{},
		{LeaseDuration: 137 * time.Second, RenewDeadline: 107 * time.Second, RetryPeriod: 26 * time.Second},
		{LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 500 * time.Millisecond},
	} {
		p, err := o.Promise()
		require.NoError(t, err)
		set := with(func(x *elector.Options) {
			x.LeaseDuration, x.RenewDeadline, x.RetryPeriod = o.LeaseDuration, o.RenewDeadline, o.RetryPeriod
		})
		t.Run(p.StopBudget.String(), func(t *testing.T) {
			inWorld(t, func(w *world) { // an outage
				a := w.join("a", set)
				w.pass(p.Outage * 10)
				for range 20 {
					a.client.Partition(electortest.Both)
					w.pass(p.Outage - 150*time.Millisecond)
					a.client.Partition(electortest.NoPartition)
					w.pass(p.Outage * 13 / 10)
				}
				w.oneTerm()
			})
			inWorld(t, func(w *world) { // requests
				count := func(who, verb string) *float64 {
					n := 0.0
					w.api.Client(who).Intercept(func(r electortest.Request) electortest.Fault {
						if r.Verb == verb {
							n++
						}
						return electortest.Fault{}
					})
					return &n
				}
				w.api.Client("b").ForbidWatch(true)
				leader, polling := count("a", "update"), count("b", "get")
				w.join("a", set)
				w.pass(time.Second)
				w.join("b", set)
				w.pass(100 * time.Minute)
				assert.InEpsilon(w, p.LeaderRequests*100, *leader, 0.02)
				assert.LessOrEqual(w, *polling, p.PollingRequests*100)
				assert.Greater(w, *polling, p.PollingRequests*55) // 62 % on average
			})
			inWorld(t, func(w *world) { // a crash, and the stop budget before it
				a := w.join("a", set)
				w.pass(p.Takeover)
				b := w.join("b", set)
				w.pass(p.Takeover)
				a.drain = p.StopBudget - 10*time.Millisecond
				a.client.Partition(electortest.Both)
				last := a.el.Status().LastRenewal
				w.within(p.Takeover+time.Second, "b leads", func() bool { return w.leader() == b })
				assert.InDelta(w, p.Takeover.Seconds(), time.Since(last).Seconds(), 0.1)
			})
		})
	}
}

func TestAPromiseOfTheClocks(t *testing.T) {
	p, err := elector.Options{}.Promise()
	require.NoError(t, err)
	assert.InDelta(t, 0.5, p.ClockRate(0), 1e-9)
	assert.InDelta(t, 0.1538, p.ClockRate(3*time.Second), 1e-4)
	assert.InDelta(t, 0, p.ClockRate(p.StopBudget), 1e-9)
	assert.Negative(t, p.ClockRate(6*time.Second))
	_, err = elector.Options{LeaseDuration: time.Minute + 1}.Promise()
	assert.ErrorContains(t, err, "elector: Options.LeaseDuration")
}
