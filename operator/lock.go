package operator

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-go/elector/leaderelection"
)

// A managerLock is a Lock for the elector of a manager. That elector logs each error of a lock as one of the API, and
// asks again until its RenewDeadline, although the Elector has logged what has happened. So here no error reaches it:
// after a loss it finds that it is somebody else, who does not hold the Lease, and stops.
type managerLock struct {
	*leaderelection.Lock
	events  *events
	leading atomic.Bool
	lose    sync.Once
	lost    chan struct{} // closed when the term was lost

	recovers bool // Options.RecoveryDeadline is set
}

// isLost reports whether the term was lost.
func (l *managerLock) isLost() bool {
	select {
	case <-l.lost:
		return true
	default:
		return false
	}
}

// settle waits until the Elector shows what it has seen, for a moment at most: a loss may have another reason.
func (l *managerLock) settle() {
	for limit := time.Now().Add(100 * time.Millisecond); l.Elector().Leader() == l.Lock.Identity() && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
}

// why says what is known of a loss.
func (l *managerLock) why() string {
	switch s := l.Elector().Status(); {
	case s.Leader != s.Identity && s.Leader != "":
		return fmt.Sprintf("taken over by %q", s.Leader)
	case s.LastError != nil:
		return "not renewed in time: " + s.LastError.Error()
	default:
		return "given up; the log says why"
	}
}

// Identity is that of the Lock until the term is lost.
func (l *managerLock) Identity() string {
	if l.isLost() {
		return l.Lock.Identity() + " (lost)"
	}
	return l.Lock.Identity()
}

// Describe names the Lease for client-go's log.
func (l *managerLock) Describe() string {
	if l.isLost() {
		return l.Lock.Describe() + " (" + l.why() + ")"
	}
	return l.Lock.Describe()
}

// Get is that of the Lock. Where that fails, somebody else holds the Lease as far as client-go is concerned.
func (l *managerLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	if !l.isLost() {
		record, raw, err := l.Lock.Get(ctx)
		switch leading := l.leading.Load(); {
		case err == nil && (!leading || record.HolderIdentity == l.Lock.Identity()):
			return record, raw, nil
		case leading:
			l.lose.Do(func() { close(l.lost) })
		case ctx.Err() == nil:
			return nil, nil, err
		}
	}
	return &resourcelock.LeaderElectionRecord{HolderIdentity: "another", LeaseDurationSeconds: 3600}, []byte("another"), nil
}

// Update is that of the Lock. Client-go may take a loss, and a release that failed, for a success: what it asks next is
// whether it leads.
func (l *managerLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.Lock.Update(ctx, record)
	if err == nil || !l.leading.Load() {
		return err
	}
	if record.HolderIdentity != "" {
		l.lose.Do(func() { close(l.lost) })
	}
	return nil
}

// RecordEvent is how client-go says that it has begun to lead, and that it has stopped.
func (l *managerLock) RecordEvent(event string) {
	l.Lock.RecordEvent(event)
	switch event {
	case "became leader":
		l.leading.Store(true)
	case "stopped leading": // for good: a manager runs one elector once
		l.events.stop()
	}
}
