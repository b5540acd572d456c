package leaderelection

import (
	"context"
	"fmt"
	"reflect"
	"time"
)

// Client-go v0.38 has Recovery in its config (KEP-6361). An elector with it goes on while its lease cannot be renewed, behind
// a write gate that is closed meanwhile. A Lock of such a config shows it when its term is suspended: by a record without
// a holder, as if the Lease were another's, because that closes the gate at once, and IsLeader is false. Then client-go
// asks again and again for a record of its own, which it gets when the term is valid again. It is the Elector that decides
// whether the term is lost, and the Lock that releases it, because client-go does not release what it does not lead.

// noLimit is a RecoveryDeadline that is not set.
const noLimit = 10 * 365 * 24 * time.Hour

// shown is how long before the end of a term's authority client-go is shown it: it looks each LockRetryPeriod.
const shown = 2 * LockRetryPeriod

// recoveryOf returns the RecoveryDeadline that the field Recovery of the config says, 0 where it is not set. Config is a
// pointer to one.
func recoveryOf(config any) (time.Duration, error) {
	v := reflect.ValueOf(config).Elem().FieldByName("Recovery")
	if !v.IsValid() || v.IsZero() {
		return 0, nil
	}
	var field reflect.Value
	if v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		field = v.Elem().FieldByName("RecoveryDeadline")
	}
	if field.IsValid() && v.Elem().NumField() == 1 {
		switch deadline, ok := field.Interface().(*time.Duration); {
		case ok && deadline == nil:
			return noLimit, nil
		case ok && *deadline < time.Second:
			return 0, fmt.Errorf("Recovery.RecoveryDeadline: %v: must be at least 1s; leave it out for no limit", *deadline)
		case ok:
			return *deadline, nil
		}
	}
	return 0, fmt.Errorf("Recovery: a %v that is not that of client-go v0.38, and not supported: leave it out, or import %q in place of this package",
		v.Type(), reflect.TypeFor[LeaderElectionConfig]().PkgPath())
}

// setRecovery sets the field Recovery of the config, to one without a deadline, which is the Elector's; or to none.
func setRecovery(config any, on bool) {
	v := reflect.ValueOf(config).Elem().FieldByName("Recovery")
	switch {
	case !v.IsValid():
	case on:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		v.SetZero()
	}
}

// asleep reports whether client-go is to wait, because it knows that it does not lead and its term is suspended. If its Run
// is to end or has ended meanwhile, so does the round. The caller holds mu.
func (l *Lock) asleep(ctx context.Context) bool {
	r := l.round
	if r == nil || r.state != suspended && r.state != missed {
		return false
	}
	if r.run != nil && r.run.Err() != nil && ctx.Err() == nil {
		l.quit(r) // another Run campaigns
		return false
	}
	return r.ctx.Err() == nil && !l.valid(r) && (r.run == nil || r.run.Err() == nil)
}

// quit ends what client-go does with a term, because its Run is to end. The caller holds mu.
func (l *Lock) quit(r *round) {
	if l.releases && r.ctx.Err() == nil && l.move(r, releases) {
		r.stop()
		return
	}
	l.move(r, stops)
}

// follow ends the round of a term that is suspended with client-go's Run, which does not say that it ends. The caller holds mu.
func (l *Lock) follow(run context.Context, r *round) {
	r.run = run
	context.AfterFunc(run, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if r.state == suspended || r.state == missed {
			l.quit(r)
		}
		l.wake()
	})
}
