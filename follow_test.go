package elector_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

type sighting struct {
	at     time.Duration
	holder string
}

// follow collects what Follow yields, to a reader who is busy for a while with each.
func (w *world) follow(client *electortest.Client, busy time.Duration) *[]sighting {
	client.SetLatency(roundTrip)
	holders, err := elector.Follow(w.Context(), client.CoordinationV1(), namespace, name)
	require.NoError(w, err)
	var seen []sighting
	go func() {
		for holder := range holders {
			seen = append(seen, sighting{w.now(), holder})
			select {
			case <-time.After(busy):
			case <-w.Context().Done():
			}
		}
	}()
	return &seen
}

func TestFollowYieldsEachHolderInOrderAndNobodyOnceTheLeaseHasExpired(t *testing.T) {
	for _, watches := range []bool{true, false} {
		t.Run(fmt.Sprintf("watch %v", watches), func(t *testing.T) {
			inWorld(t, func(w *world) {
				client := w.api.Client("dashboard")
				client.ForbidWatch(!watches)
				seen := w.follow(client, 0)
				w.pass(30 * time.Second)
				a := w.join("a")
				w.pass(30 * time.Second)
				a.stop()
				w.pass(30 * time.Second)
				b := w.join("b")
				w.pass(30 * time.Second)
				b.crash() // its last renewal was 117 s after the beginning
				w.pass(60 * time.Second)
				c := w.join("c")
				w.pass(30 * time.Second)
				c.stop()
				<-c.done
				w.pass(30 * time.Second)
				w.deleteLease()
				w.pass(30 * time.Second)
				want := []sighting{{0, ""}, {30, "a"}, {60, ""}, {90, "b"}, {134, ""}, {195, "c"}, {210, ""}} // seconds
				require.Len(w, *seen, len(want))
				for i, s := range *seen {
					assert.Equal(w, want[i].holder, s.holder)
					assert.InDelta(w, float64(want[i].at), s.at.Seconds(), 4.5) // without a watch, at its next read
				}
			})
		})
	}
}

func TestFollowYieldsToABusyReaderWhatIsTrueAfterwards(t *testing.T) {
	inWorld(t, func(w *world) {
		seen := w.follow(w.api.Client("dashboard"), 20*time.Second)
		for _, who := range []string{"a", "b", "c", "d"} {
			r := w.join(who)
			w.pass(6 * time.Second)
			if who != "d" {
				r.stop()
				<-r.done
			}
		}
		w.pass(5 * time.Minute)
		var holders []string
		for _, s := range *seen {
			holders = append(holders, s.holder)
		}
		assert.Equal(w, "d", holders[len(holders)-1])
		assert.True(w, slices.IsSorted(slices.DeleteFunc(holders, func(h string) bool { return h == "" })), "in order: %v", *seen)
	})
}

func TestFollowSurvivesAnOutageAndADeadWatch(t *testing.T) {
	inWorld(t, func(w *world) {
		client := w.api.Client("dashboard")
		seen := w.follow(client, 0)
		w.join("a")
		w.pass(time.Minute)
		client.SilenceWatches(true)
		w.pass(time.Minute)
		client.SilenceWatches(false)
		assert.Len(w, *seen, 2, "that its watch was dead is no news of the leader: %v", *seen)
		client.Partition(electortest.Both)
		w.pass(time.Minute)
		assert.Len(w, *seen, 2, "nor is it that the API is out of reach: %v", *seen)
		client.Partition(electortest.NoPartition)
		w.pass(time.Minute)
		w.usurp()
		w.pass(time.Second)
		require.Len(w, *seen, 3)
		assert.Equal(w, "stranger", (*seen)[2].holder)
	})
}

func TestAFollowerCostsNoRequestsAndEndsWithItsLoop(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		client := w.api.Client("dashboard")
		holders, err := elector.Follow(w.Context(), client.CoordinationV1(), namespace, name)
		require.NoError(w, err)
		begin := w.now()
		go func() {
			time.Sleep(time.Minute)
			w.usurp()
		}()
		for holder := range holders {
			if holder == "stranger" {
				break
			}
		}
		assert.InDelta(w, 60, (w.now() - begin).Seconds(), 1)
		assert.LessOrEqual(w, w.api.Requests("dashboard", "get"), 2)
		assert.Equal(w, 1, w.api.Requests("dashboard", "watch"))
		assert.LessOrEqual(w, w.api.Requests("dashboard", ""), 3, "and writes nothing")

		ctx, cancel := context.WithCancel(w.Context())
		holders, err = elector.Follow(ctx, client.CoordinationV1(), namespace, name)
		require.NoError(w, err)
		time.AfterFunc(time.Minute, cancel)
		for range holders {
		}
		assert.InDelta(w, 120, (w.now() - begin).Seconds(), 1)
	})
}

func TestFollowNamesItsMistakes(t *testing.T) {
	_, err := elector.Follow(t.Context(), fake.NewClientset().CoordinationV1(), "Shop", "")
	require.Error(t, err)
	assert.ErrorContains(t, err, "Namespace")
	assert.ErrorContains(t, err, "Name: required")
	_, err = elector.Follow(t.Context(), nil, "shop", "orders")
	assert.ErrorContains(t, err, "leases: required")
}

func TestFollowNoticesAWatchThatDiesWhileNobodyLeads(t *testing.T) {
	inWorld(t, func(w *world) {
		client := w.api.Client("dashboard")
		seen := w.follow(client, 0)
		a := w.join("a")
		w.pass(time.Minute)
		a.stop()
		<-a.done
		w.pass(time.Minute)
		client.SilenceWatches(true)
		w.pass(time.Minute)
		client.SilenceWatches(false) // new ones are well
		w.join("b")
		w.pass(2 * time.Minute)
		assert.Equal(w, "b", (*seen)[len(*seen)-1].holder)
	})
}

func TestFollowDoesNotTakeALateEventForAnExpiry(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.pass(time.Second)
		client := w.api.Client("dashboard")
		seen := w.follow(client, 0)
		w.pass(time.Minute)
		client.SetLatency(40 * time.Second)
		w.kubectl(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"late": "yes"} })
		w.pass(30 * time.Second)
		client.SetLatency(roundTrip)
		w.pass(time.Minute)
		w.oneTerm()
		assert.Len(w, *seen, 1, "a has led all the time")
	})
}
