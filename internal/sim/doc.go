// Package sim plays elections by package protocol, in a world of its own: processes that suspend, crash and come back, a
// server, a network and clocks, all of it on one heap of events. Nothing in it depends on anything but the seed, so that a
// run that has failed can be run again, event by event.
//
//	seed ──► Plan: faults, each at its time          plan.go
//	            │
//	            ▼
//	         world: events in order of time          world.go, queue.go
//	          │         │            │
//	          ▼         ▼            ▼
//	       process    network      server            process.go, callback.go, clock.go; network.go, watch.go; server.go
//	          │         │            │
//	          ▼         ▼            ▼
//	         checker: what the library promises      checker.go, knowledge.go, calm.go
//
// A process drives a protocol.Machine as package elector does: it carries out effects, and has the term's timer and the
// callback of its own. The checker uses nothing of package protocol but its types. Whether two callbacks may be inside at
// once it judges by what doc.go of package elector excludes: see excused.
//
// Each thing that is random has dice of its own. So a plan from which a fault was taken away plays the others as before,
// and Shrink can take away what is not needed for a failure.
//
// The storms of a plan are followed by calms. In a calm everything is healed; then somebody has to lead, and standbys
// have to be quiet.
package sim
