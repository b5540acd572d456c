package electortest

import (
	"fmt"
	"maps"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Snapshot is all that a [Server] stores at one moment, as a backup of etcd is. See [Server.Restore].
type Snapshot struct {
	server  *Server
	version int64
	leases  map[types.NamespacedName]*coordinationv1.Lease
}

// Snapshot returns what the server stores now. It can be restored any number of times.
func (s *Server) Snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Snapshot{server: s, version: s.version, leases: maps.Clone(s.leases)}
}

// Restore takes the server back to a snapshot of it, as the restore of an etcd backup does: Leases are again as they
// were, also those deleted since, resourceVersions go on from the snapshot's, so that some are given out a second
// time, and all watches end, silent watches too. To play the time in which a server that is being restored does not
// answer, cut its clients off meanwhile ([Client.Partition]). A snapshot of another Server panics.
func (s *Server) Restore(snapshot *Snapshot) {
	if snapshot.server != s {
		panic("electortest: Restore: the snapshot is of another Server")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases = maps.Clone(snapshot.leases)
	s.version = snapshot.version
	s.log = eventLog{trimmed: s.version}
	for _, c := range s.clients {
		c.endWatches()
	}
}

// Edit changes a Lease as somebody else does who does not take part in the election, such as a person with kubectl
// edit or a controller that rewrites what it finds: f gets a copy of what is stored and changes it, and the result is
// stored under a new resourceVersion, without admission. f is called without locks, and again if somebody else wrote
// meanwhile. An error says that there is no such Lease, or that f made it invalid.
//
//	server.Edit("ns", "lease", electortest.CutTimes)
//	server.Edit("ns", "lease", func(l *coordinationv1.Lease) { l.Spec.AcquireTime, l.Spec.RenewTime = nil, nil })
//	server.Edit("ns", "lease", func(l *coordinationv1.Lease) { l.Spec = older.Spec })
func (s *Server) Edit(namespace, name string, f func(*coordinationv1.Lease)) error {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	for {
		old := s.stored(key)
		if old == nil {
			return fmt.Errorf("electortest: Edit: %w", notFound(name))
		}
		lease := old.DeepCopy()
		f(lease)
		lease = lease.DeepCopy() // f may have kept it, and what it put into it
		lease.ResourceVersion = old.ResourceVersion
		if _, done, err := s.replaceIfSame(key, old, lease, false); err != nil {
			return fmt.Errorf("electortest: Edit: %w", err)
		} else if done {
			return nil
		}
	}
}

// CutTimes cuts a Lease's times to milliseconds, as a client does in a language whose clock knows no microseconds
// when it writes back a Lease that it has read, whatever it wanted to change. It is a function for [Server.Edit].
func CutTimes(lease *coordinationv1.Lease) {
	for _, at := range []*metav1.MicroTime{lease.Spec.AcquireTime, lease.Spec.RenewTime} {
		if at != nil {
			*at = metav1.NewMicroTime(at.Truncate(time.Millisecond))
		}
	}
}
