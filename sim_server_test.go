package elector_test

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector/electortest"
)

// This file takes the simulation's server back to a snapshot, and lets clients hang.

// restore takes the server back to one of its last states (S3). What a restore undoes binds those who have seen it, so
// it waits for a moment at which everybody has seen the Lease as it is, and nobody writes. Versions go on above all that
// were given out, as after etcdutl's --bump-revision: where they are given out again, a write that was decided on the first
// record of a version can replace the second, and nothing in the API prevents that.
func (s *simulation) restore() string {
	if time.Since(s.lastRestore) < time.Minute || len(s.snapshots) == 0 {
		return "nothing restored"
	}
	for range 2000 {
		l, err := s.leases().Get(s.Context(), name, metav1.GetOptions{})
		if err == nil && !s.canHurtNewcomers(l) && s.haveSeen(l) {
			return s.goBack()
		}
		time.Sleep(time.Millisecond)
	}
	return "nothing restored: not everybody has seen the Lease"
}

// haveSeen reports whether all who live have seen l and nobody writes.
func (s *simulation) haveSeen(l *coordinationv1.Lease) bool {
	living := s.living()
	s.lock.Lock()
	defer s.lock.Unlock()
	if time.Now().Before(s.underWay) {
		return false
	}
	for _, a := range s.actors {
		if a.writes > 0 || a.releases > 0 {
			return false
		}
	}
	return !slices.ContainsFunc(living, func(a *actor) bool { return a.asleep != nil || a.shown != l.ResourceVersion })
}

func (s *simulation) goBack() string {
	now := time.Now()
	s.lastDelete, s.noJoinUntil = now, now.Add(40*time.Second)
	s.cutOff()
	snapshot := s.rng.IntN(len(s.snapshots))
	s.lock.Lock()
	s.lastRestore = now
	s.tally["restores"]++
	s.lock.Unlock()
	s.mu.Lock()
	s.restored = now
	s.mu.Unlock()
	last := s.version()
	s.api.Restore(s.snapshots[snapshot])
	for s.version() < last {
	}
	s.snapshots = s.snapshots[:snapshot+1] // those after it are of a history that is no more
	if s.rng.IntN(2) == 0 {
		s.away(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
	}
	return fmt.Sprintf("restored to the last snapshot but %d", len(s.snapshots)-1-snapshot)
}

// version writes another Lease, and returns the version that this has got.
func (s *simulation) version() uint64 {
	s.others++
	other := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("other-", s.others)}}
	l, err := s.leases().Create(s.Context(), other, metav1.CreateOptions{})
	require.NoError(s, err)
	version, err := strconv.ParseUint(l.ResourceVersion, 10, 64)
	require.NoError(s, err)
	return version
}

// away keeps the server from answering anybody for a while.
func (s *simulation) away(d time.Duration) {
	s.note(nil, "nobody reaches the server for %v", d)
	for _, a := range s.living() {
		a.client.Partition(electortest.Both)
	}
	time.Sleep(d)
	for _, a := range s.living() {
		a.client.Partition(electortest.NoPartition)
	}
}

// hang lets half of an actor's requests not return, whatever becomes of their ctx, until it is healed (L9).
func (s *simulation) hang(a *actor) string {
	s.lock.Lock()
	defer s.lock.Unlock()
	if a.hung == nil {
		a.hung = make(chan struct{})
	}
	return "requests hang: " + a.name
}

// unhang lets them go on. The lock is held.
func (a *actor) unhang() {
	if a.hung != nil {
		close(a.hung)
		a.hung = nil
	}
}

// request begins a request. It reports whether it has hung before it went on.
func (s *simulation) request(a *actor) (hung bool) {
	s.lock.Lock()
	if a.underWay++; a.underWay > 4 {
		s.complain("%s has %d requests under way (L9)", a.name, a.underWay)
	}
	wait := a.hung
	if wait != nil && a.rng.IntN(2) == 0 {
		wait = nil
	}
	s.lock.Unlock()
	if wait == nil {
		return false
	}
	<-wait
	return true
}

// returned ends a request that was answered with l, or with an error.
func (s *simulation) returned(a *actor, l *coordinationv1.Lease) {
	s.lock.Lock()
	defer s.lock.Unlock()
	a.underWay--
	a.shows(l)
}

func (s *simulation) show(a *actor, l *coordinationv1.Lease) {
	s.lock.Lock()
	defer s.lock.Unlock()
	a.shows(l)
}

// shows notes which Lease an actor was shown last. The lock is held.
func (a *actor) shows(l *coordinationv1.Lease) {
	if l != nil && l.ResourceVersion != "" {
		a.shown = l.ResourceVersion
	}
}
