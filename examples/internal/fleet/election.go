package fleet

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Blocks returns the code blocks of a language in a Markdown file.
func Blocks(path, language string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	return blocks, nil
}

// Roles returns the Roles among the YAML blocks of a Markdown file.
func Roles(path string) ([]string, error) {
	blocks, err := Blocks(path, "yaml")
	if err != nil {
		return nil, err
	}
	var roles []string
	for _, block := range blocks {
		for doc := range strings.SplitSeq(block, "\n---\n") {
			if strings.Contains(doc, "\nkind: Role\n") {
				roles = append(roles, doc)
			}
		}
	}
	return roles, nil
}

// NextLeader waits for a replica to become leader, in the log from line since on.
func (f *Fleet) NextLeader(ctx context.Context, since int) (Line, int, error) {
	return f.Await(ctx, "a leader", since, func(l Line) bool { return l.Is("Became leader") })
}

// StealLease writes another holder into a Lease, as another candidate that has taken it would, for some seconds.
func (f *Fleet) StealLease(ctx context.Context, name, holder string, seconds int32) error {
	leases := f.Admin.CoordinationV1().Leases(f.Namespace)
	for { // the leader renews it now and then
		lease, err := leases.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("fleet: %w", err)
		}
		now := metav1.NowMicro()
		lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &holder, &seconds
		lease.Spec.AcquireTime, lease.Spec.RenewTime = &now, &now
		if _, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// Reconciling reports whether the line is the begin of a reconciliation. Controllers log it with -v=5.
func (l Line) Reconciling() bool { return l.Is("Reconciling") }

func (l Line) reconciled() bool {
	return l.Is("Reconcile successful", "Reconciler error") || strings.HasPrefix(l.Text, `"Reconcile done, requeueing`)
}

// FirstReconcile waits for a replica's next reconciliation, in the log from line since on.
func (f *Fleet) FirstReconcile(ctx context.Context, r *Replica, since int) (Line, int, error) {
	return f.Await(ctx, "a reconciliation by "+r.Name, since, func(l Line) bool { return l.Replica == r && l.Reconciling() })
}

// A span is one reconciliation.
type span struct {
	replica *Replica
	from    time.Time
	to      time.Time // zero while it lasts
	text    string
}

// Reconciliations returns how many there were, and an error if two replicas were at it at once. A process that has
// been killed had until then.
func (f *Fleet) Reconciliations() (int, error) {
	open := map[string]*span{}
	var spans []*span
	for _, l := range f.Lines() {
		id := l.Value("reconcileID")
		switch {
		case l.Reconciling():
			s := &span{replica: l.Replica, from: l.At, text: l.Text}
			open[id] = s
			spans = append(spans, s)
		case l.reconciled() && open[id] != nil:
			open[id].to = l.At
		}
	}
	slices.SortFunc(spans, func(a, b *span) int { return a.from.Compare(b.from) })
	last := &span{}
	for _, s := range spans {
		if s.to.IsZero() {
			s.to = s.replica.LastMoment()
		}
		if s.replica != last.replica && s.from.Before(last.to) {
			return len(spans), fmt.Errorf("two at once: %s until %s: %s\nand %s from %s: %s",
				last.replica.Name, last.to.Format(clock), last.text, s.replica.Name, s.from.Format(clock), s.text)
		}
		if s.to.After(last.to) {
			last = s
		}
	}
	return len(spans), nil
}

const clock = "15:04:05.000000"

// LastMoment is the end of the process, or now.
func (r *Replica) LastMoment() time.Time {
	select {
	case <-r.done:
		return r.ended
	default:
		return time.Now()
	}
}

// Median is the one in the middle.
func Median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
