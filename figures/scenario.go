package figures

import (
	"time"

	"github.com/elector-go/elector/electortest"
)

// A scenario is a mishap, and the part of it that is drawn. Times count from its first event.
type scenario struct {
	title       string
	from, until time.Duration
	drain       time.Duration
	play        func(w *world, fleet []*process)

	// maxGap is how long Elector may leave the work undone, in all.
	maxGap time.Duration

	// order is who leads after whom. Which standby wins is chance, as it is which replica an update stops first; a run
	// in another order is played again, so that the picture stays the same.
	order []int

	// why says of each elector what makes the difference.
	why map[kind]string
}

var scenarios = []scenario{
	{
		title: "Rolling update: three replicas are stopped in turn; the callback takes 8 s to drain",
		from:  -4 * time.Second, until: 46 * time.Second,
		drain:  8 * time.Second,
		play:   rollingUpdate,
		maxGap: 45 * time.Millisecond,
		order:  []int{0, 1, 2, 0},
		why: map[kind]string{
			clientGo: "releases the Lease on SIGTERM, while the callback still drains",
			ours:     "keeps the Lease until the callback has returned, then releases it",
		},
	},
	{
		title: "Partition: the leader is cut off, the reply to its last renewal comes 4.5 s late; the callback takes 4 s to stop",
		from:  -4 * time.Second, until: 34 * time.Second,
		drain:  4 * time.Second,
		play:   partition,
		maxGap: 5 * time.Second,
		order:  []int{0, 1},
		why: map[kind]string{
			clientGo: "counts from the late reply, and tries to release before it tells the callback",
			ours:     "counts from when it sent the last renewal that it knows of, and stops in time",
		},
	},
	{
		title: "Crash: the leader is killed, one second after a renewal",
		from:  -4 * time.Second, until: 22 * time.Second,
		play:   crash,
		maxGap: 14100 * time.Millisecond,
		order:  []int{0, 1},
		why: map[kind]string{
			clientGo: "standbys look every 2 to 4.4 s",
			ours:     "standbys wake when the Lease expires",
		},
	},
}

// run plays a scenario. Call it in a bubble of virtual time.
func (s scenario) run(k kind) record {
	w := newWorld(k, s.drain)
	defer w.close()
	var fleet []*process
	for lane := range replicas {
		fleet = append(fleet, w.join(lane))
		time.Sleep(700 * time.Millisecond) // so the first one leads
	}
	time.Sleep(30 * time.Second)
	s.play(w, fleet)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.record.fromFirstEvent()
}

// rollingUpdate stops one replica after the other. Each has a successor two seconds after it has exited.
func rollingUpdate(w *world, fleet []*process) {
	for _, p := range fleet {
		w.mark("SIGTERM to " + laneName(p.lane))
		next := time.After(16 * time.Second)
		p.stop()
		<-p.exited
		time.Sleep(2 * time.Second)
		w.join(p.lane)
		<-next
	}
}

// partition cuts the leader off as it renews: the server has the renewal, its reply is late, and nothing else passes
// until the partition heals. The reply is just in time for a client that waits 5 s, see impatient.
func partition(w *world, fleet []*process) {
	const late, healed = 4500 * time.Millisecond, 28 * time.Second
	leader := fleet[0].client
	<-fleet[0].renewing(electortest.Fault{After: late}, electortest.Fault{LoseRequest: true})
	leader.SilenceWatches(true)
	w.mark("a is cut off")
	time.Sleep(late)
	w.mark("the late reply")
	time.Sleep(healed - late)
	leader.Intercept(nil)
	leader.SilenceWatches(false)
	leader.CloseWatches()
	w.mark("the link is back")
	time.Sleep(15 * time.Second)
}

// crash kills the leader. The kubelet has started it again three seconds later.
func crash(w *world, fleet []*process) {
	<-fleet[0].renewing(electortest.Fault{}, electortest.Fault{})
	time.Sleep(time.Second)
	w.mark("SIGKILL to a")
	fleet[0].kill()
	time.Sleep(3 * time.Second)
	w.join(fleet[0].lane)
	time.Sleep(30 * time.Second)
}

// laneName is what the picture calls a replica.
func laneName(lane int) string { return string(rune('a' + lane)) }
