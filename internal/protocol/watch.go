package protocol

import (
	"slices"
	"time"
)

// watching is how a candidate learns of changes: by one watch at a time, and while there is none, by reading the Lease
// now and then (L1).
type watching struct {
	id      int     // of the watch, 0 for none
	ending  []int   // those that were closed and have not returned
	open    bool    // the watch was accepted
	since   Instant // when it was, or before, when it was asked for
	heard   Instant // when it last showed something
	alive   Instant // when something was last read from its connection, as far as known
	retryAt Instant // without a watch: when to open the next
	fails   int     // watches in a row that did not serve for long

	latest uint64  // the highest version the watch has shown
	owed   uint64  // a version that it has to show, or it is dead; 0 for none
	owedAt Instant // since when
	lags   int     // watches in a row that did not show it in time: the API server may be behind rather than the watch dead

	pollAt   Instant // without a watch: when to read the Lease again
	asked    Instant // when the last GET that was answered, or has failed, was sent
	doubting bool    // the next GET is to find out whether the watch still works (L2)
}

// expect notes that the watch has to show version soon.
func (m *Machine) expect(version uint64) {
	w := &m.watch
	if !w.open || version <= w.latest {
		return
	}
	if w.owed <= w.latest {
		w.owedAt = m.now
	}
	w.owed = max(w.owed, version)
}

// unwatch closes the watch.
func (m *Machine) unwatch() {
	w := &m.watch
	if w.id != 0 {
		m.emit(Effect{Kind: Unwatch, ID: w.id})
		w.ending = append(w.ending, w.id)
	}
	w.id, w.open, w.latest, w.owed = 0, false, 0, 0
}

// served is how long a watch has to serve to be followed by the next one soon.
func (m *Machine) served() time.Duration { return 10 * m.RetryPeriod }

// patience is how long an open watch may take to show a version that an answer has shown. It grows while the API server
// is behind, up to a minute (L1).
func (m *Machine) patience() time.Duration {
	return min(m.RetryPeriod<<min(m.watch.lags, 10), time.Minute)
}

// poll turns waiting into reading now and then, while there is no watch to show changes (L1).
func (m *Machine) poll(d decision) decision {
	if !m.watch.open && (d.do == idle || m.watch.pollAt.Before(d.at)) {
		return decision{do: get, at: m.watch.pollAt}
	}
	return d
}

// check turns waiting into asking once, when renewals have not come for longer than usual: the watch may be dead, and the
// Lease free long since (L2). While its connection brings what others asked for, it is the server that is slow, and questions
// would make it slower (L12). Each candidate asks at a random moment of its own, by its share of the spread.
func (m *Machine) check(d decision) decision {
	quiet := m.seen.quiet()
	if d.do != acquire || !m.watch.open || quiet.IsZero() || !m.watch.asked.Before(quiet) {
		return d
	}
	silent := latest(quiet, m.watch.alive.Add(m.RenewDeadline/3))
	if at := silent.Add(m.jitter * (m.RetryPeriod / 2 / spread)); at.Before(d.at) {
		m.watch.doubting = true
		return decision{do: get, at: at}
	}
	return d
}

// polled takes in that a GET sent at sent was answered, or has failed. If the watch was in doubt, and has missed what the
// answer shows, its connection may be dead (L2). If it is not, the watch has time to show that, as after any answer. The
// next poll is as far off as client-go's would be.
func (m *Machine) polled(sent Instant, ev Event) {
	w := &m.watch
	if w.doubting && ev.Outcome == OK && w.open && ev.Record.Version > w.latest {
		m.emit(Effect{Kind: Suspect, ID: w.id, Sent: w.heard})
	}
	w.asked, w.doubting = sent, false
	w.pollAt = m.now.Add(m.RetryPeriod + m.pick(m.RetryPeriod+m.RetryPeriod/5))
}

// tend opens the watch when it is time to, and closes it when it gives no sign of life.
func (m *Machine) tend() {
	w := &m.watch
	if m.phase == Over {
		return
	}
	switch {
	case w.id != 0 && !w.open && !m.now.Before(w.since.Add(m.RenewDeadline)):
		if m.calls.awaited() == nil { // otherwise that request finds out whether the connection is dead
			m.emit(Effect{Kind: Suspect, ID: w.id})
		}
		m.watchEnded(false)
	case w.open && w.owed > w.latest && !m.now.Before(w.owedAt.Add(m.patience())):
		w.lags++
		m.emit(Effect{Kind: Suspect, ID: w.id, Sent: w.owedAt})
		m.unwatch()
		w.retryAt = m.now
	case w.open && w.fails > 0 && m.now.Sub(w.since) >= m.served():
		w.fails = 0
		m.emit(Effect{Kind: WatchAgain})
	}
	if w.id == 0 && !m.now.Before(w.retryAt) && len(w.ending) < MaxCalls-2 && m.underWay() < MaxCalls {
		m.lastID++
		w.id, w.since = m.lastID, m.now
		m.emit(Effect{Kind: Watch, ID: w.id})
	}
	m.wakeAt(m.nextTend())
}

// nextTend is when to tend the watch again.
func (m *Machine) nextTend() Instant {
	switch w := &m.watch; {
	case w.id == 0 && !m.now.Before(w.retryAt):
		return m.now.Add(m.RetryPeriod) // clients have not returned
	case w.id == 0:
		return w.retryAt
	case !w.open:
		return w.since.Add(m.RenewDeadline)
	case w.owed > w.latest:
		return w.owedAt.Add(m.patience())
	case w.fails > 0:
		return w.since.Add(m.served())
	default:
		return m.now.Add(m.LeaseDuration)
	}
}

// noticed takes in what a watch reports. What a closed one still has to say does not count.
func (m *Machine) noticed(ev Event) {
	w := &m.watch
	if ev.ID != w.id {
		if ev.Kind == WatchEnded {
			w.ending = slices.DeleteFunc(w.ending, func(id int) bool { return id == ev.ID })
		}
		return
	}
	switch ev.Kind {
	case WatchOpened:
		w.open, w.since, w.heard = true, m.now, m.now
		if !m.holds() && m.seen.exists {
			m.seen.stale = true // the watch does not show a deletion from before it began
		}
	case Heard:
		w.alive = ev.At
	case WatchEnded:
		m.watchEnded(ev.Outcome == Refused)
		w.ending = slices.DeleteFunc(w.ending, func(id int) bool { return id == ev.ID })
	case WatchShowed, WatchGone:
		w.heard, w.latest = m.now, max(w.latest, ev.Record.Version)
		if w.owed > 0 && w.latest >= w.owed {
			if m.now.Sub(w.owedAt) < m.RetryPeriod {
				w.lags = 0
			}
			w.owed = 0
		}
		if ev.Kind == WatchGone {
			m.observe(m.seen.gone(ev.Record.Version, Instant{}, m.now))
		} else {
			m.observe(m.seen.see(ev.Record, Instant{}, m.now))
		}
	}
}

// watchEnded sets the time for the next watch. One that has served a while is followed soon, at a random moment,
// because a server that goes away ends those of all candidates at once. Others are followed ever later, up to a minute, or a
// quarter of an hour if the API refuses them.
// Meanwhile the candidate polls (L1).
func (m *Machine) watchEnded(refused bool) {
	w, id := &m.watch, m.watch.id
	if !w.pollAt.After(m.now) {
		w.pollAt = m.now.Add(m.pick(m.RetryPeriod - 1)) // not all candidates at once
	}
	served := w.open && m.now.Sub(w.since) >= m.served()
	m.unwatch()
	if served {
		w.fails = 0
		w.retryAt = m.now.Add(m.pick(m.RetryPeriod / 4))
		return
	}
	if w.fails == 0 {
		m.emit(Effect{Kind: NoWatch, ID: id})
	}
	limit := time.Minute
	if refused {
		limit = 15 * time.Minute // somebody has to change a setting first
	}
	w.retryAt = m.now.Add(min(m.RetryPeriod<<min(w.fails, 10), limit) + m.pick(m.RetryPeriod/4))
	w.fails++
}
