package elector

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"os"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/elector-go/elector/internal/mistake"
)

const (
	defaultLeaseDuration = 15 * time.Second
	defaultRenewDeadline = 10 * time.Second
	defaultRetryPeriod   = 2 * time.Second

	// Less promises nothing: no API server answers reliably within a third of this RenewDeadline, and no callback
	// returns within this stop budget. A thousandth of LeaseDuration is what two clocks differ by at the most while
	// each is slewed by NTP, at 500 ppm.
	minRenewDeadline = 300 * time.Millisecond
	minStopBudget    = 100 * time.Millisecond
)

// namespaceFile is where a pod finds the name of its namespace. A variable for tests.
var namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Options configure a candidate. Name and Run are required; the zero value of every other field selects a safe default.
// The three durations must satisfy
//
//	20 ms ≤ 2·RetryPeriod ≤ RenewDeadline < LeaseDuration
//	300 ms ≤ RenewDeadline
//	LeaseDuration − RenewDeadline ≥ 100 ms, and ≥ LeaseDuration/1000
//
// LeaseDuration − RenewDeadline is the stop budget: how long Run may take to return after leadership was lost.
type Options struct {
	// Namespace of the Lease. Default: the pod's own, read from the mounted service account. New returns an error if
	// there is none.
	Namespace string

	// Name of the Lease, shared by all candidates. Required.
	Name string

	// Identity names this candidate in the Lease. Default: hostname, "_" and a random part, made anew for each Elector.
	// Every process needs its own, also after a restart: processes with the same identity cannot be distinguished in the
	// Lease, in Events and in logs. It does not make them unsafe. A candidate recognises its term by its own writes,
	// not by its identity, so it waits until the record of a namesake or of its own predecessor expires, and logs that.
	// It must have no control characters.
	Identity string

	// Run is the work of the leader. Required. Its ctx ends when leadership ends, or when the ctx of Elector.Run does.
	// Run must then return as soon as it can. It is never called again before it has returned.
	//
	// If Run returns before its ctx ends, the Lease is released and Elector.Run returns: nil if Run returned nil,
	// otherwise Run's error, wrapped. A panic is not recovered.
	Run func(ctx context.Context) error

	// LeaseDuration is how long other candidates wait for a renewal before one of them takes over, each by its own
	// clock, counted from when it received the last change. It is written to the Lease, and the others obey the value
	// in the record. Whole seconds, at least one. Default: 15 s.
	LeaseDuration time.Duration

	// RenewDeadline is how long a leader keeps its term without a successful renewal, counted from just before the last
	// successful one was sent. Then Run's ctx ends. If there is no answer after a third of it, a second request is sent.
	// Every answer may take up to half of it. Less than LeaseDuration, at least 300 ms. Default: 10 s.
	RenewDeadline time.Duration

	// RetryPeriod is how often a leader renews, unless a third of RenewDeadline is less. It is also how often a standby
	// without a watch reads the Lease, and how often Healthy is called. After an error a leader tries again within it, and
	// sooner as RenewDeadline comes near. At least 10 ms, at most half of RenewDeadline. Default: 2 s.
	RetryPeriod time.Duration

	// RecoveryDeadline is how long a term may go on without authority, counted from when it ended: RenewDeadline after the
	// last successful renewal was sent. Meanwhile the term is suspended, not lost: Run's ctx does not end, and the write
	// gate (see Elector.WrapTransport) refuses, as Term.Valid is false. The term is valid again, with the same token, once a
	// renewal succeeds. That needs the Lease to be just as the term left it. If another candidate has taken it, or it
	// was deleted or rewritten, or RecoveryDeadline passes, the term is lost. So an outage of the API for everybody
	// stops no work.
	//
	// A suspended callback runs although another replica may lead. Set RecoveryDeadline only for work that has nothing but
	// writes to protect, and that makes all of them through the gate or with Term.Token. Use Term.Await or Term.Context
	// elsewhere. Not negative. Zero: a term whose RenewDeadline has passed is lost.
	RecoveryDeadline time.Duration

	// DrainLimit is how long the Lease is kept for a callback that has not returned, counted from when its ctx ended. Then
	// renewals stop, and the term ends RenewDeadline after the last renewal. If the callback still does not return,
	// OnOverrun is called and Check fails, as after a loss. Not negative. Zero is no limit: the Lease is kept for as long
	// as the callback takes, and the log says so each minute.
	DrainLimit time.Duration

	// Healthy reports whether this replica is fit to lead. It is called every RetryPeriod, in a goroutine of its own and
	// never concurrently; its ctx ends after RenewDeadline. While it returns an error, or nothing within RenewDeadline, a
	// standby writes nothing, and a leader gives its term up with ReasonUnhealthy: the callback's ctx ends, and the Lease is
	// released when the callback has returned. Until the first answer the replica counts as fit. Default: always fit.
	Healthy func(ctx context.Context) error

	// Yield returns how much longer this candidate waits than others at a Lease that is free or has expired. It is called
	// when this candidate could take the Lease, and again when its wait is over, in a goroutine of its own and never
	// concurrently. If it does not return within RetryPeriod, what it returned last counts. Negative is zero. It is a delay and
	// not a vote: if all candidates wait, the candidate with the shortest wait leads. Default: no wait.
	Yield func() time.Duration

	// StateDir is a directory that outlives the process but not the place where it runs: an emptyDir in a pod, /run on a
	// host. With it a leader that was killed, and is started again, does not wait for its own Lease to expire: a lock on a
	// file there proves that the old process is dead. Processes that Run has started are not proven dead with it. If
	// several processes share a directory, one of them benefits at a time. New returns an error if the directory does not
	// exist, cannot be written to, or is on a file system whose locks can end before their process does: a network's, 9p
	// or FUSE. Default: in a pod on Linux /dev/shm/elector, as far as it can be used, because the containers of a pod
	// share that memory, and it outlives each of them; elsewhere none, and after a crash the Lease has to expire. "-" is
	// none everywhere.
	StateDir string

	// Deaths says which processes have ended. With it the next leader does not wait for the Lease of a dead one to expire.
	// Package kubelet implements it, for pods. All candidates need it: it tells the others of this process's end, too.
	// Default: none.
	Deaths Deaths

	// SingleTerm makes Elector.Run return the *LostError after a term was lost or given up, instead of campaigning again.
	// It is meant for callbacks that cannot be started twice, such as the Start of a controller-runtime manager. (A manager
	// that starts only when it leads serves no webhooks, caches or health checks on a standby.)
	SingleTerm bool

	// Labels are set on the Lease with each write. Other labels are kept. Default: none.
	Labels map[string]string

	// OnNewLeader is called with the identity of each holder seen in the Lease, including this candidate. Calls are
	// made in order and one at a time. The election does not wait for them, but Elector.Run waits for the last call
	// before it returns. Default: none.
	OnNewLeader func(identity string)

	// OnOverrun is called when Run is still running and the Lease is about to end: three quarters of the stop budget
	// are spent, and another replica may lead soon. Call os.Exit(1) here, so that two callbacks never run at once. It is
	// called at most once in a term, in a goroutine of its own. Default: an error in the log.
	OnOverrun func(Term)

	// Events receives a Kubernetes Event on the Lease when this candidate starts to lead, and another, with the reason,
	// when it stops. They are sent in order. The election does not wait for them, but Elector.Run waits for the last
	// one before it returns. Events need the verbs create and patch on events in the Lease's namespace. Default: none.
	Events EventRecorder

	// Metrics receives the measurements of the election. The module github.com/elector-go/elector/metrics implements it
	// for Prometheus. Default: none.
	Metrics Metrics
}

// complete returns the options with defaults in place of zero values, and an error with all that is wrong with them.
func (o Options) complete() (Options, error) {
	var errs []error
	if o.Namespace == "" {
		namespace, err := os.ReadFile(namespaceFile)
		if err != nil {
			errs = append(errs, mistake.In("Namespace", "required outside a pod: the default is the pod's own namespace, which cannot be read: %w", err))
		}
		o.Namespace = strings.TrimSpace(string(namespace))
	}
	if o.Identity == "" {
		host, err := os.Hostname()
		if err != nil {
			errs = append(errs, mistake.In("Identity", "required on a machine without a hostname, from which the default is made: %w", err))
		}
		o.Identity = host + "_" + string(uuid.NewUUID())
	}
	o.defaultDurations()
	if o.Metrics == nil {
		o.Metrics = NoMetrics{}
	}
	o.Labels = maps.Clone(o.Labels)
	errs = append(errs, o.checkNames()...)
	errs = append(errs, o.checkDurations()...)
	if err := checkStateDir(o.StateDir, types.NamespacedName{Namespace: o.Namespace, Name: o.Name}); err != nil {
		errs = append(errs, err)
	}
	return o, errors.Join(errs...)
}

func (o *Options) defaultDurations() {
	o.LeaseDuration = cmp.Or(o.LeaseDuration, defaultLeaseDuration)
	o.RenewDeadline = cmp.Or(o.RenewDeadline, defaultRenewDeadline)
	o.RetryPeriod = cmp.Or(o.RetryPeriod, defaultRetryPeriod)
}

func (o Options) checkNames() (errs []error) {
	if o.Name == "" {
		errs = append(errs, mistake.In("Name", "required: the name of the Lease that all candidates share"))
	} else if msgs := validation.NameIsDNSSubdomain(o.Name, false); len(msgs) > 0 {
		errs = append(errs, mistake.In("Name", "%q is not an object name: %s", o.Name, strings.Join(msgs, "; ")))
	}
	if msgs := validation.ValidateNamespaceName(o.Namespace, false); o.Namespace != "" && len(msgs) > 0 {
		errs = append(errs, mistake.In("Namespace", "%q is not a namespace's name: %s", o.Namespace, strings.Join(msgs, "; ")))
	}
	if strings.ContainsFunc(o.Identity, func(r rune) bool { return !unicode.IsPrint(r) }) {
		errs = append(errs, mistake.In("Identity", "%q: must have no control characters: it stands in the Lease, in Events and in logs", o.Identity))
	}
	if o.Run == nil {
		errs = append(errs, mistake.In("Run", "required: the function to run while leading"))
	}
	for _, err := range metav1validation.ValidateLabels(o.Labels, nil) {
		errs = append(errs, mistake.In("Labels", "%s", err.ErrorBody()))
	}
	return errs
}

func (o Options) checkDurations() (errs []error) {
	const leaseDuration, renewDeadline, run mistake.Field = "LeaseDuration", "RenewDeadline", "Run"
	switch {
	case o.LeaseDuration > math.MaxInt32*time.Second:
		errs = append(errs, mistake.In("LeaseDuration", "%v: must be at most %v: the Lease stores it as a 32-bit number of seconds",
			o.LeaseDuration, math.MaxInt32*time.Second))
	case o.LeaseDuration < time.Second, o.LeaseDuration%time.Second != 0:
		errs = append(errs, mistake.In("LeaseDuration", "%v: must be whole seconds, at least 1s (the default is %v): the Lease stores seconds", o.LeaseDuration, defaultLeaseDuration))
	}
	switch {
	case o.RenewDeadline < minRenewDeadline:
		errs = append(errs, mistake.In("RenewDeadline", "%v: must be at least %v: answers of the API may take half of it, and no API server keeps to less", o.RenewDeadline, minRenewDeadline))
	case o.RenewDeadline >= o.LeaseDuration:
		errs = append(errs, mistake.In("RenewDeadline", "%v: must be less than %v (%v): the difference is the time %v has to stop; set both, or neither (the defaults are %v and %v)",
			o.RenewDeadline, leaseDuration, o.LeaseDuration, run, defaultRenewDeadline, defaultLeaseDuration))
	case o.LeaseDuration-o.RenewDeadline < max(minStopBudget, o.LeaseDuration/1000):
		errs = append(errs, mistake.In("RenewDeadline", "%v: must be less than %v (%v) by at least %v: the difference is the time %v has to stop, and what covers clocks that run at different rates",
			o.RenewDeadline, leaseDuration, o.LeaseDuration, max(minStopBudget, o.LeaseDuration/1000), run))
	}
	if o.RecoveryDeadline < 0 {
		errs = append(errs, mistake.In("RecoveryDeadline", "%v: must not be negative; 0 is none: a term without renewals is lost", o.RecoveryDeadline))
	}
	if o.DrainLimit < 0 {
		errs = append(errs, mistake.In("DrainLimit", "%v: must not be negative; 0 is no limit", o.DrainLimit))
	}
	switch {
	case o.RetryPeriod < 10*time.Millisecond:
		errs = append(errs, mistake.In("RetryPeriod", "%v: must be at least 10ms, or the API server is asked without a pause", o.RetryPeriod))
	case o.RetryPeriod > o.RenewDeadline/2:
		errs = append(errs, mistake.In("RetryPeriod", "%v: must be at most half of %v (%v), to leave room for a second try (the default is %v)", o.RetryPeriod, renewDeadline, o.RenewDeadline, defaultRetryPeriod))
	}
	return errs
}
