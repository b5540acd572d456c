package sim

import "time"

// An event is something that happens in the world at a time.
type event struct {
	at   time.Duration
	seq  uint64 // of two at one time, the one that was planned first comes first
	kind eventKind
	who  int32  // the process
	arg  int32  // what of it: a request, a watch, a fault
	gen  uint32 // of what arg names, because numbers are used again; or of a timer, because it may have been set anew
}

type eventKind uint8

const (
	evFault     eventKind = iota // of the plan: arg
	evJoin                       // a process of the slot arg begins
	evCheck                      // a check of a calm: arg
	evWake                       // the machine wants to be called
	evDeadline                   // the term's own timer
	evGuard                      // the checker's timer
	evLeave                      // the request arg leaves the process
	evArrive                     // the request arg comes to the server
	evReply                      // the reply to the request arg comes
	evCancelled                  // the request arg returns because its ctx has ended
	evUnwatched                  // the watch arg returns because its ctx has ended
	evOpen                       // the request for the watch arg comes to the server
	evShow                       // something comes by the watch arg
	evWork                       // the callback goes on
	evNotice                     // the loop notices that the callback's ctx has ended
	evReturned                   // the loop notices that the callback has returned
	evStop                       // the process is asked to stop, as by SIGTERM
	evExit                       // the process ends itself, or is not there any more
	evWord                       // the kubelet's word that the process arg has ended (S13)
	evSuspend                    // the process is suspended, for as long as its ambush says
	evAwake                      // the process wakes
	evCopies                     // a process that was copied is judged
	evLock                       // the process tries to lock its StateDir
)

// A queue is a heap of events, the next one first. It has four children to a node, because most of its time goes into
// sinking.
type queue []event

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

func (q *queue) push(e event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if !e.before(&h[parent]) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = e
	*q = h
}

func (q *queue) pop() event {
	h := *q
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	*q = h
	n := len(h)
	if n == 0 {
		return top
	}
	i := 0
	for {
		first := 4*i + 1
		if first >= n {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, n); c++ {
			if h[c].before(&h[least]) {
				least = c
			}
		}
		if !h[least].before(&last) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = last
	return top
}
