package elector

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// Status is a snapshot of a candidate. The zero Status is that of a candidate that has not seen the Lease yet.
type Status struct {
	Identity    string    // this candidate's name
	Leader      string    // the holder last seen in the Lease, "" if none
	Leading     bool      // as IsLeader at the time of the snapshot
	Term        Term      // the term whose callback runs; the zero Term while standing by
	LastRenewal time.Time // when the last write that holds the Lease was sent; zero before the first
	Draining    time.Time // since when the callback has been asked to stop and has not returned; zero otherwise
	Suspended   time.Time // since when the term has no authority, see Options.RecoveryDeadline; zero otherwise
	Reason      Reason    // why the last term was lost or given up; zero before the first that was
	LastError   error     // why the last request failed, with its verb; nil once one has succeeded since
}

// MarshalJSON encodes the Status as an object with the fields identity, leader and leading and, where they have a
// value, term, validUntil, lastRenewal, draining, suspended, reason and lastError. Term is the token, a string because JSON
// numbers lose digits.
func (s Status) MarshalJSON() ([]byte, error) {
	out := struct {
		Identity    string    `json:"identity"`
		Leader      string    `json:"leader"`
		Leading     bool      `json:"leading"`
		Term        uint64    `json:"term,string,omitempty"`
		ValidUntil  time.Time `json:"validUntil,omitzero"`
		LastRenewal time.Time `json:"lastRenewal,omitzero"`
		Draining    time.Time `json:"draining,omitzero"`
		Suspended   time.Time `json:"suspended,omitzero"`
		Reason      string    `json:"reason,omitempty"`
		LastError   string    `json:"lastError,omitempty"`
	}{s.Identity, s.Leader, s.Leading, s.Term.Token(), s.Term.ValidUntil(), s.LastRenewal, s.Draining, s.Suspended, "", ""}
	if s.Reason != 0 {
		out.Reason = s.Reason.String()
	}
	if s.LastError != nil {
		out.LastError = s.LastError.Error()
	}
	return json.Marshal(out)
}

// ServeHTTP answers with the Status as JSON, for people and dashboards. The status code is 200 whoever leads. Use Check
// for a health check.
func (e *Elector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the status can only be read", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(e.Status()) // it fails only if the reader is gone
}

// snapshot is what the election's goroutine publishes for readers in others.
type snapshot struct {
	leader      string
	term        Term
	lastRenewal time.Time
	reason      Reason // of the last term that was lost or given up
	lastError   error
	awake       protocol.Instant // the loop means to act again by then
	stuck       bool             // no more requests are sent, because clients do not return from those under way
}

// IsLeader reports whether this candidate leads at this moment. It reads the clock at each call, so it is false as soon
// as the term has run out, even after a suspension. The answer may be out of date by the time the caller acts on it;
// Term.Token protects against that. Like Term.Valid, it stays true while a callback drains for another reason than a
// loss.
func (e *Elector) IsLeader() bool { return e.state.Load().term.Valid() }

// Leader returns the holder last seen in the Lease, or "" if there is none.
func (e *Elector) Leader() string { return e.state.Load().leader }

// Status returns a snapshot of this candidate.
func (e *Elector) Status() Status {
	s := e.state.Load()
	return Status{
		Identity:    e.opts.Identity,
		Leader:      s.leader,
		Leading:     s.term.Valid(),
		Term:        s.term,
		LastRenewal: s.lastRenewal,
		Draining:    s.term.Draining(),
		Suspended:   s.term.Suspended(),
		Reason:      s.reason,
		LastError:   s.lastError,
	}
}

// Check is a health check with the signature of a healthz.Checker; the request may be nil. It fails
//
//   - while the callback overruns its Lease: its ctx has ended, it still runs, and another replica may lead soon;
//   - when the election's loop has been stuck for more than a LeaseDuration;
//   - when requests do not return although their time is up, so that no more are sent.
//
// A standby is healthy. So is a candidate that cannot reach the API, or that the API refuses, because a restart would not
// help: see Status, the log and the metrics. Do not make readiness depend on leading, or a rolling update never ends.
func (e *Elector) Check(*http.Request) error {
	s := e.state.Load()
	lease := e.opts.Namespace + "/" + e.opts.Name
	switch {
	case s.term.term != nil && s.term.overruns(now()):
		return fmt.Errorf("elector: lease %s: the callback overruns its lease: it was asked to stop and still runs, and another replica may lead soon; restart this process", lease)
	case !s.awake.IsZero() && -until(s.awake) > e.opts.LeaseDuration:
		return fmt.Errorf("elector: lease %s: the election's loop is stuck: it meant to act %v ago", lease, -until(s.awake).Round(time.Second))
	case s.stuck:
		return fmt.Errorf("elector: lease %s: %w", lease, errStuck)
	}
	return nil
}
