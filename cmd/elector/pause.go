package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector/internal/reading"
)

// The commands in this file write records that a candidate reads as those of other candidates. The README has the same
// patches for kubectl, in "By hand".

// A patch is what to change in a Lease, as a JSON merge patch. Where annotations has the value nil, it goes.
type patch struct {
	annotations map[string]any
	spec        map[string]any
}

// onto is the patch for just this record of the Lease.
func (p patch) onto(lease *coordinationv1.Lease) ([]byte, error) {
	return json.Marshal(map[string]any{"spec": p.spec, "metadata": map[string]any{
		"uid": lease.UID, "resourceVersion": lease.ResourceVersion, "annotations": p.annotations,
	}})
}

// change has decide look at the Lease and writes the patch that it returns, on just that record: one that has changed
// meanwhile is looked at again.
func change(ctx context.Context, t target, decide func(*coordinationv1.Lease) (patch, error)) error {
	leases, err := t.leases()
	if err != nil {
		return err
	}
	for {
		lease, err := get(ctx, t)
		if err != nil {
			return err
		}
		p, err := decide(lease)
		if err != nil {
			return err
		}
		body, err := p.onto(lease)
		if err != nil {
			return err
		}
		_, err = leases.Leases(t.namespace).Patch(ctx, t.name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: "elector"})
		switch {
		case err == nil:
			return nil
		case !apierrors.IsConflict(err):
			return explain(t, "patch", err)
		}
	}
}

func newPause() *cobra.Command {
	var length time.Duration
	var reason string
	cmd := &cobra.Command{
		Use:   "pause [namespace/]lease",
		Short: "Have nobody lead, for a time",
		Long: `Pause the election: nobody leads until the time is over or "elector resume" is
called. The leader's work is stopped as after a loss. Who has paused it, and why,
is kept for "elector status" in the annotation
` + reading.PauseAnnotation + `.

Candidates of client-go pause, too. Needs the verbs get and patch on the Lease.

Exit codes: 0 paused, 3 there is no such Lease, 1 anything else.`,
		Example: "  elector pause shop/batch --for 2h --reason 'migrating the database'",
		Args:    oneLease,
	}
	kube := addKubeFlags(cmd)
	cmd.ValidArgsFunction = kube.completeLeases
	cmd.Flags().DurationVar(&length, "for", 24*time.Hour, "for how long, in whole seconds")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who wonder")
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := kube.target(args[0])
		if err != nil {
			return err
		}
		var until time.Time
		var led string
		err = change(cmd.Context(), t, func(lease *coordinationv1.Lease) (p patch, err error) {
			now := time.Now()
			r := describe(t, lease, now)
			led, until = r.Holder, now.Add(length)
			return pauses(t, r, length, reading.Pause{At: metav1.NewMicroTime(now), By: whoami(), Reason: reason}, now)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is paused until %s; to resume it before that: elector resume %[1]s\n", t, local(until))
		if led != "" && led != reading.Pauser {
			fmt.Fprintf(cmd.OutOrStdout(), "%s led: its work has to stop now\n", led)
		}
		return nil
	}
	return cmd
}

// pauses is the patch that pauses an election.
func pauses(t target, r report, length time.Duration, p reading.Pause, now time.Time) (patch, error) {
	switch {
	case r.State == reading.Missing:
		return patch{}, &exitError{code: exitNobody, err: errors.New(r.Advice[0])}
	case length < time.Second || length%time.Second != 0 || int64(int32(length/time.Second)) != int64(length/time.Second):
		return patch{}, fmt.Errorf("--for %v: must be whole seconds, at least 1s: the Lease stores seconds", length)
	case r.State == reading.Paused && now.Add(length).Before(*r.Expires):
		return patch{}, fmt.Errorf("--for %v: it is paused until %s already, and candidates do not wait for less than they were told: resume it first, by elector resume %s", length, local(*r.Expires), t)
	case r.State == reading.Paused:
		p.Held = r.pause.Held
	case r.Holder != reading.Pauser && r.State != reading.Free: // one that is free was released, and one that is paused is nobody's
		p.Held = int32(r.binds / time.Second)
		if length < r.binds {
			return patch{}, fmt.Errorf("--for %v: must be at least %v, for which %s may go on if it cannot reach the API server: a candidate that starts meanwhile knows only of the pause", length, r.binds, cmp.Or(r.Holder, "the last leader"))
		}
	}
	note, err := json.Marshal(p)
	return patch{
		annotations: map[string]any{reading.PauseAnnotation: string(note)},
		spec:        map[string]any{"holderIdentity": reading.Pauser, "leaseDurationSeconds": int32(length / time.Second), "renewTime": p.At},
	}, err
}

// whoami is who has called elector, as far as this machine knows.
func whoami() string {
	name := "somebody"
	if u, err := osuser.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

func newResume() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume [namespace/]lease",
		Short: "End a pause",
		Long: `End a pause: the Lease is free, and a candidate leads within milliseconds.

If the pause is so new that the leader before it may not have noticed, because it
cannot reach the API server, the Lease becomes free when that one's would have
expired. Needs the verbs get and patch on the Lease.

Exit codes: 0 resumed, 3 it is not paused, 1 anything else.`,
		Example: "  elector resume shop/batch",
		Args:    oneLease,
	}
	kube := addKubeFlags(cmd)
	cmd.ValidArgsFunction = kube.completeLeases
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := kube.target(args[0])
		if err != nil {
			return err
		}
		var notice time.Duration
		err = change(cmd.Context(), t, func(lease *coordinationv1.Lease) (patch, error) {
			now := time.Now()
			r := describe(t, lease, now)
			if r.State != reading.Paused {
				return patch{}, notPaused(t, r)
			}
			notice = noticeOf(r, now)
			return frees(notice, now), nil
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is resumed%s\n", t, after(notice))
		return nil
	}
	return cmd
}

// enough is how much longer than a leader's Lease a pause must have lasted before its end needs no notice: the clocks of
// the two who write it may differ.
const enough = time.Minute

// noticeOf is how long the Lease of a paused election must not be free yet, because the leader before may still work: it
// has to have noticed the pause, or to have stopped by itself.
func noticeOf(r report, now time.Time) time.Duration {
	held := time.Duration(r.pause.Held) * time.Second
	if r.PausedBy == "" { // by kubectl: nothing is known of the leader before
		held = 15 * time.Second
	}
	if held == 0 || now.Sub(*r.LastRenewal) > held+enough {
		return 0
	}
	return held
}

// frees is the patch that a holder's release would be. With a notice it is one that is free later.
func frees(notice time.Duration, now time.Time) patch {
	at := metav1.NewMicroTime(now)
	p := patch{
		annotations: map[string]any{reading.PauseAnnotation: nil},
		spec:        map[string]any{"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": at},
	}
	if notice > time.Second {
		p.spec["leaseDurationSeconds"], p.spec["acquireTime"] = int32(notice/time.Second), at
	}
	return p
}

func after(notice time.Duration) string {
	if notice <= time.Second {
		return "; see who leads: elector status"
	}
	return fmt.Sprintf(", and free in %v: the leader before the pause may not have noticed it yet", notice)
}

func notPaused(t target, r report) error {
	what := fmt.Sprintf("%s is not paused: it is %s", t, r.State)
	if r.Holder != "" {
		what += ", holder " + r.Holder
	}
	return &exitError{code: exitNobody, err: errors.New(strings.Join(append([]string{what}, r.Advice...), "\n"))}
}

func newFree() *cobra.Command {
	var dead bool
	cmd := &cobra.Command{
		Use:   "free [namespace/]lease",
		Short: "Free the Lease of a dead leader before it expires",
		Long: `Free a Lease that its holder has not released.

A Lease that has expired is freed when it has not changed for its duration, by
this machine's clock: candidates would take it by themselves. Before that only
with --the-holder-is-dead. If the holder is not dead, two replicas work at once
for a moment. That its pod is gone is no proof: a node that is cut off lets its
pods work on. Needs the verbs get and patch on the Lease.

Exit codes: 0 freed, 3 nobody holds it, 1 anything else.`,
		Example: "  elector free shop/batch --the-holder-is-dead",
		Args:    oneLease,
	}
	kube := addKubeFlags(cmd)
	cmd.ValidArgsFunction = kube.completeLeases
	cmd.Flags().BoolVar(&dead, "the-holder-is-dead", false, "you know that the holder's process does not run any more")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := kube.target(args[0])
		if err != nil {
			return err
		}
		var holder string
		var seen string // the record that has to stay as it is
		err = change(cmd.Context(), t, func(lease *coordinationv1.Lease) (patch, error) {
			r := describe(t, lease, time.Now())
			if err := mayFree(t, r, dead); err != nil {
				return patch{}, err
			}
			if seen != "" && seen != lease.ResourceVersion {
				return patch{}, fmt.Errorf("%s has changed meanwhile, and its holder is %s: see elector status", t, cmp.Or(r.Holder, "nobody"))
			}
			holder = cmp.Or(r.Holder, "nobody")
			if !dead {
				seen = lease.ResourceVersion
				fmt.Fprintf(cmd.ErrOrStderr(), "%s has expired by this machine's clock; making sure that it does not change for %v\n", t, r.binds)
				select {
				case <-cmd.Context().Done():
					return patch{}, errors.New("interrupted; nothing was changed")
				case <-time.After(r.binds):
				}
			}
			return frees(0, time.Now()), nil
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is free; %s held it\n", t, holder)
		return nil
	}
	return cmd
}

// mayFree is nil if the record may be freed.
func mayFree(t target, r report, dead bool) error {
	switch {
	case r.State == reading.Missing || r.State == reading.Free:
		return &exitError{code: exitNobody, err: errors.New(r.Advice[0])}
	case r.State == reading.Paused:
		return fmt.Errorf("%s is paused: use elector resume %[1]s", t)
	case dead || r.State == reading.Expired:
		return nil
	case r.State == reading.Edited:
		return errors.New(r.Advice[0])
	}
	return fmt.Errorf("%s holds %s, renewed it %s ago, and may be alive: the Lease expires in %s. If you know that it is dead, add --the-holder-is-dead",
		r.Holder, t, short(time.Since(*r.LastRenewal)), short(time.Until(*r.Expires)))
}
