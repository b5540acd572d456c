package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/internal/reading"
)

// A report is what status says.
type report struct {
	Lease       string        `json:"lease"`
	State       reading.State `json:"state"`
	Holder      string        `json:"holder,omitempty"`
	Since       *time.Time    `json:"since,omitempty"`       // when the holder won the Lease
	LastRenewal *time.Time    `json:"lastRenewal,omitempty"` // by the holder's clock
	Expires     *time.Time    `json:"expires,omitempty"`     // when another may take it, without a renewal until then
	Duration    string        `json:"leaseDuration,omitempty"`
	Transitions int32         `json:"transitions"`
	Writer      string        `json:"writer,omitempty"`      // the program that wrote the Lease last, as the API server names it
	StepDown    *string       `json:"stepDown,omitempty"`    // the annotation's value: a request that nobody has answered yet
	PausedBy    string        `json:"pausedBy,omitempty"`    // in the state paused, as far as elector pause has noted it
	PauseReason string        `json:"pauseReason,omitempty"` // likewise
	Advice      []string      `json:"advice,omitempty"`      // what to know and to do

	binds time.Duration // how long the record binds a candidate, from when that receives it
	pause reading.Pause
}

func newStatus() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status [namespace/]lease",
		Short: "Who leads, since when, and what to do if nobody does",
		Long: `Show who holds a Lease, since when, and how far it is from expiry.

Times in a Lease are those of its holder's clock; what has expired is judged by
this machine's. "expires" is when another replica may take the Lease over. (The
validUntil of /leader is earlier: until then this replica's program may work.)
Needs the verb get on the Lease.

Exit codes: 0 somebody leads, 3 nobody does or the election is paused, 1 the
Lease could not be read.`,
		Example: "  elector status shop/batch\n  kubectl elector status -n shop order-controller -o json",
		Args:    oneLease,
	}
	kube := addKubeFlags(cmd)
	addOutput(cmd, &output)
	cmd.ValidArgsFunction = kube.completeLeases
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, lease, err := kube.read(cmd.Context(), args[0], output)
		if err != nil {
			return err
		}
		r := describe(t, lease, time.Now())
		if err := r.write(cmd.OutOrStdout(), output); err != nil {
			return err
		}
		if r.State != reading.Held {
			return &exitError{code: exitNobody}
		}
		return nil
	}
	return cmd
}

func addOutput(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "json, or nothing for people")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
}

func checkOutput(output string) error {
	if output != "" && output != "json" {
		return fmt.Errorf("--output %q: the only other format is json", output)
	}
	return nil
}

// read reads the Lease that an argument names, for a command with this output.
func (k *kubeFlags) read(ctx context.Context, arg, output string) (t target, lease *coordinationv1.Lease, err error) {
	if err := checkOutput(output); err != nil {
		return t, nil, err
	}
	if t, err = k.target(arg); err != nil {
		return t, nil, err
	}
	lease, err = get(ctx, t)
	return t, lease, err
}

// get returns nil for a Lease that does not exist, and errors that say what to do.
func get(ctx context.Context, t target) (*coordinationv1.Lease, error) {
	leases, err := t.leases()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	lease, err := leases.Leases(t.namespace).Get(ctx, t.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(t, "get", err)
	}
	return lease, nil
}

// explain adds to an error of the API what somebody can do about it.
func explain(t target, verb string, err error) error {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w\ngrant the verb %s on leases.coordination.k8s.io %q in namespace %s", err, verb, t.name, t.namespace)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s does not accept the credentials: %w\nlog in again, or choose another --context", t.config.Host, err)
	case apierrors.ReasonForError(err) == metav1.StatusReasonUnknown:
		return fmt.Errorf("cannot reach the API server %s: %w", t.config.Host, err)
	}
	return err
}

// describe judges a Lease at a moment. lease may be nil.
func describe(t target, lease *coordinationv1.Lease, now time.Time) report {
	read := reading.Read(lease, now)
	r := report{Lease: t.String(), State: read.State, Holder: read.Holder, binds: read.Binds, pause: read.Pause}
	if read.State == reading.Missing {
		r.advise("No such Lease. Either no candidate has run yet (check their logs: they may lack the verb create), or the name or the namespace is another.")
		return r
	}
	spec := lease.Spec
	r.Transitions = value(spec.LeaseTransitions)
	r.Writer = writer(lease)
	if v, ok := lease.Annotations[stepDownAnnotation]; ok {
		r.StepDown = &v
	}
	if !read.Renewed.IsZero() {
		r.LastRenewal = &read.Renewed
	}
	if !read.Expires.IsZero() {
		r.Expires = &read.Expires
	}
	if read.State != reading.Free {
		r.Duration = read.Binds.String()
	}
	if spec.AcquireTime != nil && (read.State == reading.Held || read.State == reading.Expired) {
		r.Since = &spec.AcquireTime.Time
	}
	switch read.State {
	case reading.Free:
		r.adviseFree(now)
	case reading.Edited:
		r.adviseEdited(t)
	case reading.Paused:
		r.PausedBy, r.PauseReason = read.Pause.By, read.Pause.Reason
		r.advise("The election is paused: nobody leads until %s. To resume it before that: elector resume %s", local(read.Expires), t)
	default:
		r.adviseHeld(t, read, now)
	}
	return r
}

func (r *report) adviseFree(now time.Time) {
	if r.Expires != nil && now.Before(*r.Expires) {
		r.advise("Nobody leads. The Lease was released with the notice that it is free in %s: until then no candidate takes it.", short(r.Expires.Sub(now)))
		return
	}
	r.advise("Nobody leads. A running candidate takes a free Lease within milliseconds, or seconds if it may not watch: if it stays free, none is running, or none is healthy, or none may update it.")
}

// adviseEdited is for a record that no candidate has written so.
func (r *report) adviseEdited(t target) {
	what := "It has no renewTime"
	if r.Holder == "" {
		what = "The holder's name was removed, which is no release"
	}
	r.advise("Somebody has edited this Lease. %s. A leader that lives puts it right at once; if this stays, there is none, and a candidate takes the Lease when it has stayed the same for %s. If you know that no leader works any more, free it now: elector free %s --the-holder-is-dead", what, short(r.binds), t)
}

// adviseHeld says what there is to know of a Lease with a holder.
func (r *report) adviseHeld(t target, read reading.Reading, now time.Time) {
	binds := r.binds
	if !read.Said {
		r.advise("The record does not say for how long it holds (leaseDurationSeconds): it may have been edited. Candidates take it for %s.", short(binds))
	}
	switch ahead := r.LastRenewal.Sub(now); {
	case ahead > 2*time.Second:
		r.advise("The last renewal is %s in the future: the holder's clock or this machine's is wrong. Candidates do not compare clocks, but the times shown here mean little.", short(ahead))
	case r.State == reading.Expired:
		r.advise("By this machine's clock the Lease expired %s ago. If the last renewal has moved when you run this again, the clocks differ and the holder is well.", short(now.Sub(*r.Expires)))
		r.advise("If not, %s, and no candidate has taken over: check that one runs, its log, and its rights (get, update, watch). Do not delete the Lease: a free or expired one is taken by itself.", r.gone())
	case now.Sub(*r.LastRenewal) > min(max(binds/3, 2*time.Second), rare):
		r.adviseLate(t, now.Sub(*r.LastRenewal), r.Expires.Sub(now))
	}
	if r.StepDown != nil && r.State == reading.Held {
		r.advise("The holder was asked to step down, and still leads: its work may be draining. If this stays, the holder does not know the annotation %s: delete its pod instead.", stepDownAnnotation)
	}
	if binds < 5*time.Second {
		r.advise("A duration of %s leaves little time for a slow API server: the durations can be checked with Options.Promise.", short(binds))
	}
}

// rare is how often a healthy holder renews at least, whatever its LeaseDuration, unless its RetryPeriod is as long: the
// Lease does not say that.
const rare = 30 * time.Second

// adviseLate is for a holder that has not renewed for longer than one that is well.
func (r *report) adviseLate(t target, age, left time.Duration) {
	late := "the holder is late"
	if age <= r.binds/3 {
		late = "the holder is late, unless it renews so rarely (the default is every 2s)"
	}
	r.advise("The last renewal is %s old, of %s: %s. If it goes on like this, another takes over in %s.", short(age), short(r.binds), late, short(left))
	if left > 15*time.Second {
		r.advise("If you know that the holder is dead, nobody has to wait for that: elector free %s --the-holder-is-dead", t)
	}
}

// gone is what has happened where a record has expired.
func (r *report) gone() string {
	if r.Holder == reading.Pauser {
		return "the pause is over"
	}
	return "the holder has crashed or is cut off"
}

func (r *report) advise(format string, args ...any) {
	r.Advice = append(r.Advice, fmt.Sprintf(format, args...))
}

// writer is who wrote the spec last, as the API server has noted it: the beginning of the user agent.
func writer(lease *coordinationv1.Lease) string {
	var name string
	var last time.Time
	for _, f := range lease.ManagedFields {
		if f.Time != nil && !f.Time.Time.Before(last) && f.FieldsV1 != nil && strings.Contains(f.FieldsV1.GetRawString(), "f:renewTime") {
			name, last = f.Manager, f.Time.Time
		}
	}
	return name
}

func (r report) write(w io.Writer, output string) error {
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	now := time.Now()
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) { fmt.Fprintf(tw, key+":\t"+format+"\n", args...) }
	line("Lease", "%s", r.Lease)
	line("State", "%s", r.State)
	switch {
	case r.State == reading.Paused:
		line("Until", "%s (%s)", local(*r.Expires), duration.HumanDuration(r.Expires.Sub(now)))
		if r.PausedBy != "" {
			line("Paused by", "%s, %s ago", r.PausedBy, duration.HumanDuration(now.Sub(*r.LastRenewal)))
		}
		if r.PauseReason != "" {
			line("Reason", "%s", r.PauseReason)
		}
	case r.Holder != "":
		line("Holder", "%s", r.Holder)
	}
	if r.Since != nil {
		line("Leads since", "%s (%s)", local(*r.Since), duration.HumanDuration(now.Sub(*r.Since)))
	}
	if r.LastRenewal != nil && r.State != reading.Paused {
		line("Last renewal", "%s ago", short(now.Sub(*r.LastRenewal)))
	}
	if r.Expires != nil && r.State == reading.Held {
		line("Expires in", "%s of %s, unless renewed", short(r.Expires.Sub(now)), r.Duration)
	}
	if r.State != reading.Missing {
		line("Transitions", "%d", r.Transitions)
	}
	if r.Writer != "" {
		line("Written by", "%s", r.Writer)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, a := range r.Advice {
		fmt.Fprintf(w, "\n%s\n", a)
	}
	return nil
}

func local(t time.Time) string { return t.Local().Format(time.RFC3339) }

func short(d time.Duration) string {
	if d.Abs() < 10*time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return duration.HumanDuration(d)
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func newFollow() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "follow [namespace/]lease",
		Short: "Each change of leader, as it happens",
		Long: `Print who leads, and then a line for each change, until Ctrl-C.

A crashed leader is gone once its Lease has expired, counted by this machine's
clock from the last renewal that arrived. Needs the verbs get and watch on the
Lease; without watch it reads every two seconds.`,
		Example: "  elector follow shop/batch\n  elector follow shop/batch -o json | jq -r .holder",
		Args:    oneLease,
	}
	kube := addKubeFlags(cmd)
	addOutput(cmd, &output)
	cmd.ValidArgsFunction = kube.completeLeases
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, _, err := kube.read(cmd.Context(), args[0], output)
		if err != nil {
			return err // Follow would go on trying, which is no answer to a mistake
		}
		leases, err := t.leases()
		if err != nil {
			return err
		}
		holders, err := elector.Follow(withoutNews(cmd.Context()), leases, t.namespace, t.name)
		if err != nil {
			return err
		}
		for holder := range holders {
			if err := writeHolder(cmd.OutOrStdout(), output, time.Now(), holder); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// withoutNews has a log that leaves out who leads, for commands that say it themselves.
func withoutNews(ctx context.Context) context.Context {
	return klog.NewContext(ctx, logr.New(troubles{klog.Background().GetSink()}))
}

type troubles struct{ logr.LogSink }

func (t troubles) WithValues(kv ...any) logr.LogSink { return troubles{t.LogSink.WithValues(kv...)} }

func (t troubles) Info(level int, msg string, kv ...any) {
	if msg != "New leader" {
		t.LogSink.Info(level, msg, kv...)
	}
}

func writeHolder(w io.Writer, output string, at time.Time, holder string) error {
	if output == "json" {
		return json.NewEncoder(w).Encode(struct {
			Time   time.Time `json:"time"`
			Holder string    `json:"holder"` // empty: nobody
		}{at, holder})
	}
	if holder == "" {
		holder = "(nobody)"
	}
	_, err := fmt.Fprintln(w, at.Local().Format("2006-01-02T15:04:05.000Z07:00"), holder)
	return err
}
