package protocol

import "time"

// EventKind is what kind of event has happened.
type EventKind int

// The events. Fields of Event that are not named are not read.
const (
	Tick        EventKind = iota // Wake has come
	Left                         // the request ID has left the process, not before At
	Dials                        // the request ID waits for a connection for so long that another may be made sooner
	Answered                     // the request ID has returned, with an Outcome; also one that was cancelled. It left at At, if Left has not said it
	WatchOpened                  // the watch ID was accepted
	WatchShowed                  // the watch ID has shown Record
	WatchGone                    // the watch ID has shown that Record was deleted
	Heard                        // something was read at At from the connection of the watch ID
	WatchEnded                   // the watch ID has returned, with an Outcome; also one that was closed
	Health                       // whether this replica is fit to lead: OK
	Yield                        // how much longer than others this candidate waits: Delay
	Proven                       // the processes that wrote Marks are dead: this process has their lock (S12)
	Died                         // the processes that wrote Marks have ended: their kubelet says so (S13)
	Stop                         // the candidate has to stop, or its callback's ctx has ended
	StepDown                     // the term is to be given up
	Returned                     // the callback has returned; OK if its term was given up
	Resign                       // the process is about to end itself, within Delay of the answer, whatever its callback does (S8)
	Campaign                     // after LetGo: stand by again
)

// An Event is what a driver hands in.
type Event struct {
	Kind       EventKind
	ID         int
	OK         bool
	At         Instant
	Outcome    Outcome
	Record     Record        // of an answer without error
	RetryAfter time.Duration // what the API has asked for, 0 for nothing
	Delay      time.Duration
	Marks      []Mark
}

// Outcome is how a request has ended.
type Outcome int

// The outcomes.
const (
	OK         Outcome = iota
	Missing            // a GET has found no Lease
	Conflict           // a write was refused, because the record was not, or not any more, as it was decided on
	Refused            // the API refuses the candidate until somebody changes a setting
	Unanswered         // there was no answer in time
	Failed             // anything else: it may or may not have been carried out
)

// Verb is what a request asks for.
type Verb int

// The verbs.
const (
	Get Verb = 1 + iota
	Create
	Update
)

// String is the API's word.
func (v Verb) String() string { return [...]string{"", "get", "create", "update"}[v] }

// EffectKind is what kind of thing there is to do.
type EffectKind int

// The effects. Fields of Effect that are not named are not set.
const (
	Send     EffectKind = iota // send Request
	Cancel                     // end the ctx of the request ID; OK if its answer does not count any more
	Suspect                    // the connection of the request or watch ID may be dead: something should have been answered
	Watch                      // open a watch, as ID
	Unwatch                    // close the watch ID
	AskYield                   // ask how much longer than others this candidate waits: a Yield answers it

	BeginTerm    // begin the callback: term Token, whose authority counts from Sent. If OK, nobody led for Gap
	RenewTerm    // the term's authority counts from Sent; OK if this is to be reported as a renewal
	LeaseMissing // the Lease was deleted while the callback runs
	LoseTerm     // the term has no authority any more: Lost
	SuspendTerm  // the term has no authority for the time being (S14)
	ResumeTerm   // it has authority again
	StopCallback // end the callback's ctx: for Lost, or because the candidate was stopped
	LetGo        // the release is over; OK if nothing is left to release. If Released it was answered, and Lasts that long
	ForgetProof  // what was proven is void

	PutsBack    // the Lease was deleted, and is put back
	SawHolder   // the Lease has another holder than before: Lost.Holder
	SawNamesake // another process leads under this candidate's identity
	SawOwnName  // the Lease is held under this candidate's identity by another process, or by an earlier one
	Trouble     // the request ID has failed, and is tried again; OK if it was refused
	NoTrouble   // the API answers again
	NoWatch     // the watch ID has not worked. The Lease is polled
	WatchAgain  // the watch works again
)

// An Effect is what a driver carries out.
type Effect struct {
	Kind     EffectKind
	ID       int
	OK       bool
	Request  Request
	Token    uint64
	Sent     Instant
	Gap      time.Duration
	Lost     Lost
	Released bool
	Lasts    time.Duration
}

// A Request is one to the API about the Lease. Every write is conditional: an update carries the version and the UID of
// On, and a create succeeds only if there is no Lease (S4).
type Request struct {
	Verb  Verb
	Claim Claim  // what a write says
	On    Record // what an update replaces: everything else in it is kept (S11)
	Wins  bool   // it may win the Lease: what proves this process dead has to be left before it is sent (S12)
	Clear bool   // remove the request to step down (L8)
	Spare bool   // use the second connection, because an answer on the first is overdue

	// From Presses on it goes before others of the process; an answer after Deadline is worth nothing. Zero for any time (L12).
	Presses, Deadline Instant
}
