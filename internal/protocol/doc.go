// Package protocol is an election by a Lease, as one state machine. It decides everything about it: what to send and
// when, what an answer means, which of several attempts counts, when a term begins, is lost, and is released. The rules are
// in PROTOCOL.md; comments name them (S1, L3).
//
// It does nothing. It has no clock, no goroutine, no randomness of its own, and does no I/O. A driver owns a [Machine],
// hands in what happens as an [Event], with the time, and carries out the effects that [Machine.Step] returns. It calls
// Step again at [Machine.Wake], with a Tick, if nothing happens before. Nothing outside this package can write the state.
//
//	driver:  answer, watch event, end of the callback, …
//	            │ Step(event, now)
//	            ▼
//	         take      what the event says about the Lease, a request, the watch
//	         expire    requests that have had their time
//	         proceed   decide, for the phase; become another phase; send what is due
//	         tend      the watch
//	            │ effects
//	            ▼
//	driver:  requests, watch, callback, log
//
// The phases, and the transitions between them:
//
//	standingBy ── becomeLeading ──► leading ── becomeDraining ──► draining
//	    ▲  │                           │                             │
//	    │  └──── becomeReleasing ──► releasing ◄── becomeReleasing ──┘
//	    └─────────────────────────────  │
//	     becomeStandingBy               └─► over
//
// A program that only wants to know who leads has a machine in the phase following, which it never leaves.
package protocol
