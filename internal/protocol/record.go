package protocol

import (
	"math"
	"strings"
	"time"
)

// A Claim is the part of a Lease's spec that a candidate writes. The rest of the Lease belongs to others (S11).
type Claim struct {
	Holder      string
	Seconds     int32
	Acquired    int64 // acquireTime in microseconds since 1970, 0 for none
	Renewed     int64 // renewTime, in the same way
	Transitions int32
}

// A Record is a Lease as it was received.
type Record struct {
	Claim
	Version uint64 // the resourceVersion, 0 if it is not a number. The versions of a cluster are comparable (KEP-5504)
	UID     string
	Created int64 // creationTimestamp in seconds since 1970, by the API server's clock

	// Asked is whether an annotation asks the holder to step down, and To is whom it names as the next (L8).
	Asked bool
	To    string

	// Object is what the record was read from. A write onto the record hands it back to the driver.
	Object any
}

// Two records can be the same in four ways:
//
//	                    same                          used for
//	c == w              every field                   a write is known to have been applied (S1); nothing to put right
//	sameWrite(c, w)     both times                    a record is our own write, whatever else of it was edited (S5)
//	sameTerm(c, w)      one of the two times, which   a record is of the term that is being served, though a client has cut
//	                    may have lost its last three  its times, put an older state back, or lost one of the times (S5)
//	                    digits
//	c.term() == t       holder and acquireTime        a record is of a term that is known to be over (S5, S12, S13)

// sameWrite reports whether a and b come from one write, though another client may have edited the record since. Their
// last digits are random (see stamps), so even replicas of one name do not write the same.
func sameWrite(a, b Claim) bool { return a.Acquired == b.Acquired && a.Renewed == b.Renewed }

// sameTerm reports whether a record that names a holder comes from the term in which the holder wrote w.
func sameTerm(c, w Claim) bool {
	return c.Acquired != 0 && sameTime(c.Acquired, w.Acquired) || c.Renewed != 0 && sameTime(c.Renewed, w.Renewed)
}

// A Mark identifies a term in the Lease's record: the holder, and the acquireTime in microseconds since 1970.
type Mark struct {
	Holder   string
	Acquired int64
}

func (c Claim) term() Mark { return Mark{c.Holder, c.Acquired} }

// sameTime reports whether a and b are one time, though another client may have cut the digits below the millisecond
// off one of them: a JavaScript client does when it writes a Lease back.
func sameTime(a, b int64) bool {
	return a == b || a != 0 && b != 0 && a/1000 == b/1000 && (a%1000 == 0 || b%1000 == 0)
}

// stamps are the times of a write that wins the Lease, in microseconds. What is below the millisecond is replaced by
// salt, which is to be random. It is never 0, so that a time that was cut off (see sameTime) is not taken for a whole
// one; and the two differ, unlike those of a release.
func stamps(now Instant, salt int64) (acquired, renewed int64) {
	a := 1 + salt%998
	b := a + 1 + salt/1000%(999-a)
	millis := now.Wall.Milliseconds() * 1000
	return millis + a, millis + b
}

// Released reports whether the claim is what a holder leaves behind when it lets go: no holder, for one second. An
// admission policy may have made that longer; then the two times show it: they are the same in a release, of
// client-go's elector too. A holder name that somebody only blanked out is different, and frees nobody: the one who
// leads has not stopped.
func (c Claim) Released() bool {
	return c.Holder == "" && c.Renewed != 0 && (c.Seconds <= 1 || c.Acquired == c.Renewed)
}

// usualLeaseDuration is how long a record binds that does not say so.
const usualLeaseDuration = 15 * time.Second

// Duration is how long the record binds others. One that does not say is given the usual time.
func (c Claim) Duration() time.Duration {
	if c.Seconds <= 0 {
		return usualLeaseDuration
	}
	return time.Duration(c.Seconds) * time.Second
}

// Blank reports whether nobody has ever held the Lease, as in one that was made for RBAC's resourceNames.
func (c Claim) Blank() bool { return c.Holder == "" && c.Renewed == 0 }

// Names reports whether value names a candidate: by its identity, or by the part before the first "_", which is the
// pod's name where the identity was left to its default.
func Names(value, identity string) bool {
	host, _, _ := strings.Cut(identity, "_")
	return value != "" && (value == identity || value == host)
}

// more returns the count of terms after one more. It does not overflow.
func more(transitions int32) int32 { return min(transitions, math.MaxInt32-1) + 1 }
