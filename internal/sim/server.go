package sim

import (
	"strconv"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A record is a Lease at the server, and where it comes from.
type record struct {
	protocol.Record
	author int32  // the process that wrote the claim as it is, or whose claim was edited; nobody if there is none
	write  uint64 // the version of the author's write
	intact bool   // nobody has edited the claim since
}

const nobody = -1

// A lease is what the server keeps.
type lease struct {
	record
	exists bool
}

// A server answers as the table in PROTOCOL.md says.
type server struct {
	lease
	version   uint64 // the last that was given out
	uids      int
	snapshots []lease
	past      []lease // what the Lease was, the latest last
}

// answer is what the server says to a request.
type answer struct {
	outcome protocol.Outcome
	record  record
	changed bool
}

// serve carries out a request of a process. Reads and writes are consistent.
func (s *server) serve(q *request, now time.Duration) answer {
	switch q.ask.Verb {
	case protocol.Get:
		if !s.exists {
			return answer{outcome: protocol.Missing}
		}
		return answer{record: s.record}
	case protocol.Create:
		if s.exists {
			return answer{outcome: protocol.Conflict}
		}
		s.make(now)
	default:
		on := &q.ask.On
		if !s.exists || s.Version != on.Version || s.UID != on.UID {
			return answer{outcome: protocol.Conflict}
		}
		if s.Claim == q.ask.Claim && !(s.Asked && q.ask.Clear) {
			return answer{record: s.record} // a PUT that changes nothing
		}
		if q.ask.Clear {
			s.Asked, s.To = false, ""
		}
	}
	s.Claim = q.ask.Claim
	s.author, s.write, s.intact = q.who, s.version+1, true
	s.change()
	return answer{record: s.record, changed: true}
}

// make creates a Lease.
func (s *server) make(now time.Duration) {
	s.uids++
	s.lease = lease{exists: true, record: record{author: nobody}}
	s.UID, s.Created = "u"+strconv.Itoa(s.uids), int64((wallEpoch+now)/time.Second)
}

// change gives the Lease a new version, and remembers it.
func (s *server) change() {
	s.version++
	s.Version = s.version
	if len(s.past) == cap(s.past) && len(s.past) > 0 {
		copy(s.past, s.past[len(s.past)/2:])
		s.past = s.past[:len(s.past)-len(s.past)/2]
	}
	s.past = append(s.past, s.lease)
}

// edit changes the Lease as somebody outside the election.
func (s *server) edit(claim protocol.Claim) {
	old := s.Claim
	s.Claim = claim
	if old != claim {
		s.intact = false
	}
	if old.Acquired != claim.Acquired || old.Renewed != claim.Renewed {
		s.author, s.write = nobody, 0
	}
	s.change()
}

// putBack writes what the Lease was before.
func (s *server) putBack(old *lease) {
	s.Claim, s.author, s.write, s.intact = old.Claim, old.author, old.write, old.intact
	s.change()
}

// drop deletes the Lease. It returns what it was, with the version of the deletion.
func (s *server) drop() record {
	s.version++
	gone := s.record
	gone.Version = s.version
	s.lease = lease{record: record{author: nobody}}
	return gone
}

func (s *server) snapshot() {
	const most = 10
	if len(s.snapshots) == most {
		s.snapshots = append(s.snapshots[:0], s.snapshots[1:]...)
	}
	s.snapshots = append(s.snapshots, s.lease)
}

// restore takes the server back to one of its last states. Versions go on above all that were given out, as after
// etcdutl's --bump-revision. It reports false if there is no such state.
func (s *server) restore(back int) bool {
	n := len(s.snapshots) - 1 - back
	if n < 0 {
		return false
	}
	s.version += 1000
	s.lease = s.snapshots[n]
	s.snapshots = s.snapshots[:n+1] // those after it are of a history that is no more
	return true
}
