// Package reading reads the record in a Lease for people, as a candidate reads it that sees the record for the first time.
package reading

import (
	"encoding/json"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector/internal/protocol"
)

// State is how a Lease stands.
type State string

const (
	Held    State = "held"
	Free    State = "free"    // released, or never taken
	Expired State = "expired" // by the reader's clock
	Paused  State = "paused"  // the holder is Pauser, and the pause has not expired
	Edited  State = "edited"  // no write of a candidate's: a holder without renewTime, or no holder where none has released it
	Missing State = "missing"
)

const (
	// Pauser is the holder of a Lease whose election is paused. Nobody renews such a record, so it expires.
	Pauser = "paused"

	// PauseAnnotation says more about a pause, as the JSON of a Pause.
	PauseAnnotation = "elector-go.github.io/pause"
)

// A Pause is what PauseAnnotation says.
type Pause struct {
	At     metav1.MicroTime `json:"at"`               // the renewTime of the record that it belongs to: another is older or was written without it
	By     string           `json:"by,omitempty"`     // who paused the election
	Reason string           `json:"reason,omitempty"` // why
	Held   int32            `json:"held,omitempty"`   // the leaseDurationSeconds of the holder that the pause replaced; 0 if there was none
}

// A Reading is what a Lease says.
type Reading struct {
	State  State
	Holder string // as the Lease has it, "" if it has none

	// Binds is how long a candidate waits that receives this record now and no other. Each counts by its own clock from
	// when the record came, so one that has it already may have less to wait. Zero for what is free.
	Binds time.Duration

	Said    bool      // the record itself says how long it binds
	Renewed time.Time // by the writer's clock; zero if the record does not say it
	Expires time.Time // Renewed and Binds; zero if the record does not say when it was renewed, or is free
	Pause   Pause     // in the state Paused
}

// Read reads a Lease at a moment of this machine's clock. lease may be nil: there is none.
func Read(lease *coordinationv1.Lease, now time.Time) Reading {
	if lease == nil {
		return Reading{State: Missing}
	}
	spec, micros := lease.Spec, func(t *metav1.MicroTime) int64 {
		if t.IsZero() {
			return 0
		}
		return t.UnixMicro()
	}
	c := protocol.Claim{
		Holder: ptr.Deref(spec.HolderIdentity, ""), Seconds: ptr.Deref(spec.LeaseDurationSeconds, 0),
		Acquired: micros(spec.AcquireTime), Renewed: micros(spec.RenewTime),
	}
	r := Reading{Holder: c.Holder, Binds: c.Duration(), Said: c.Seconds > 0}
	if c.Renewed != 0 {
		r.Renewed = spec.RenewTime.Time
		r.Expires = r.Renewed.Add(r.Binds)
	}
	switch {
	case c.Blank(), c.Released() && c.Seconds <= 1:
		r.State, r.Binds, r.Expires = Free, 0, time.Time{}
	case c.Released():
		r.State = Free // in so many seconds
	case r.Holder == "" || r.Renewed.IsZero():
		r.State, r.Expires = Edited, time.Time{}
	case now.After(r.Expires):
		r.State = Expired
	case r.Holder == Pauser:
		r.State, r.Pause = Paused, pauseOf(lease)
	default:
		r.State = Held
	}
	return r
}

// pauseOf is what is known of the pause beside the record; nothing if somebody has paused it by kubectl.
func pauseOf(lease *coordinationv1.Lease) (p Pause) {
	if json.Unmarshal([]byte(lease.Annotations[PauseAnnotation]), &p) != nil || p.At.UnixMicro() != lease.Spec.RenewTime.UnixMicro() {
		return Pause{}
	}
	return p
}
