package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/internal/reading"
)

// stepDownAnnotation asks the holder of a Lease to step down. A value names the candidate to hand over to.
const stepDownAnnotation = "elector-go.github.io/step-down"

type stepDownFlags struct {
	kube    *kubeFlags
	to      string
	wait    bool
	timeout time.Duration
}

func newStepDown() *cobra.Command {
	var f stepDownFlags
	cmd := &cobra.Command{
		Use:   "step-down [namespace/]lease",
		Short: "Ask the leader to hand over",
		Long: `Ask the holder of a Lease to step down, by the annotation
` + stepDownAnnotation + `. The holder ends its work as on SIGTERM,
releases the Lease, and another candidate leads. With --to the others leave the
Lease to that pod or identity for a moment; if it does not come, any may lead.

Holders that do not use this library do not know the annotation. Needs the verbs
get and patch on the Lease, and watch to wait.

Exit codes: 0 asked (with --wait: another leads), 3 nobody leads who could hand
over, 1 anything else.`,
		Example: "  elector step-down shop/batch --wait\n  elector step-down shop/batch --to batch-7d4b9c-x2x5q",
		Args:    oneLease,
	}
	f.kube = addKubeFlags(cmd)
	cmd.ValidArgsFunction = f.kube.completeLeases
	cmd.Flags().StringVar(&f.to, "to", "", "the pod, or the identity, that should lead next (default any)")
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until another leads")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long to wait, 0 for as long as it takes")
	_ = cmd.RegisterFlagCompletionFunc("to", cobra.NoFileCompletions)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := f.kube.target(args[0])
		if err != nil {
			return err
		}
		return f.stepDown(cmd, t)
	}
	return cmd
}

func (f *stepDownFlags) stepDown(cmd *cobra.Command, t target) error {
	ctx := cmd.Context()
	lease, err := get(ctx, t)
	if err != nil {
		return err
	}
	r := describe(t, lease, time.Now())
	switch {
	case r.State != reading.Held:
		return nobody(t, r)
	case f.to != "" && is(r.Holder, f.to):
		fmt.Fprintf(cmd.OutOrStdout(), "%s leads %s already\n", r.Holder, t)
		return nil
	}
	leases, err := t.leases()
	if err != nil {
		return err
	}
	// The resourceVersion would not do as a condition: it changes with each renewal.
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":         lease.UID,
		"annotations": map[string]string{stepDownAnnotation: f.to},
	}})
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := leases.Leases(t.namespace).Patch(ctx, t.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "elector"}); err != nil {
		return explain(t, "patch", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "asked %s to step down\n", r.Holder)
	if !f.wait {
		return nil
	}
	next, err := f.await(ctx, leases, t, r.Holder)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s leads, after %v\n", next, time.Since(began).Round(time.Millisecond))
	if f.to != "" && !is(next, f.to) {
		return fmt.Errorf("%s leads, not %s: that one did not take the Lease in time; check that it runs and is healthy", next, f.to)
	}
	return nil
}

// nobody is the answer to who wants something of a leader where there is none.
func nobody(t target, r report) error {
	advice := strings.Join(r.Advice, "\n")
	if r.State == reading.Missing || r.State == reading.Free {
		return &exitError{code: exitNobody, err: fmt.Errorf("nobody leads %s: there is nobody to ask", t)}
	}
	return &exitError{code: exitNobody, err: fmt.Errorf("nobody leads %s (%s): there is nobody to ask\n%s", t, r.State, advice)}
}

// await waits for another holder than old.
func (f *stepDownFlags) await(ctx context.Context, leases coordinationv1client.LeasesGetter, t target, old string) (string, error) {
	if f.timeout > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	holders, err := elector.Follow(withoutNews(ctx), leases, t.namespace, t.name)
	if err != nil {
		return "", err
	}
	released := false
	for holder := range holders {
		switch {
		case holder == "":
			released = true
		case holder != old:
			return holder, nil
		case released:
			return "", fmt.Errorf("%s stepped down and leads again: no other candidate took the Lease; check that one runs", old)
		}
	}
	switch {
	case !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "", errors.New("interrupted; the request to step down stands")
	case released:
		return "", fmt.Errorf("%s stepped down, and nobody has taken the Lease within %v: check that another candidate runs", old, f.timeout)
	}
	return "", fmt.Errorf("%s still leads after %v: its work is draining, or it does not know the annotation %s; then delete its pod instead", old, f.timeout, stepDownAnnotation)
}

// is reports whether an identity is what somebody calls by name: all of it, or the pod before the underscore.
func is(identity, name string) bool {
	pod, _, _ := strings.Cut(identity, "_")
	return name == identity || name == pod
}
