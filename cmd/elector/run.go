//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/metrics"
)

// passedOn are the signals that go to the program as they are. While none runs they do nothing.
var passedOn = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	syscall.SIGALRM}

type runFlags struct {
	kube                                      *kubeFlags
	lease, listen                             string
	grace                                     time.Duration
	restart                                   bool
	leaseDuration, renewDeadline, retryPeriod time.Duration
	verbosity                                 string
	election                                  electionFlags
}

func newRun() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run --lease shop/batch [flags] -- program [args...]",
		Short: "Run a program only while this replica leads",
		Long: `Stand by until this replica holds the Lease, and then run the program.

When leadership is lost, on SIGTERM or Ctrl-C, and on "elector step-down", all
processes of the program get SIGTERM, and SIGKILL if they are still there after
the grace period or when the lease is about to end. The Lease is released as
soon as they are gone, and not before.

When the program ends by itself, the Lease is released at once, and elector exits
with the program's exit code, or 128 and the number of the signal that ended it.

The program's environment has ELECTOR_LEASE (shop/batch), ELECTOR_IDENTITY (the
holder in the Lease) and ELECTOR_TOKEN (a number that grows with every term:
store it with what you write, and refuse writes with a smaller one).

Elector's own exit codes: 0 stopped by a signal, 125 elector failed, 126 the
program cannot be run, 127 it was not found.`,
		Example: `  # a shell script in one replica at a time
  elector run --lease shop/batch -- ./batch.sh

  # start it again when it ends, and show who leads on port 8081
  elector run --lease shop/batch --restart --listen :8081 -- python3 worker.py`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return f.runLogged(cmd.Context(), args) },
	}
	cmd.Flags().SetInterspersed(false) // from the first argument on they are the program's
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return ownFailure(err) })
	f.kube = addKubeFlags(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.lease, "lease", "", "the Lease, as namespace/name or name (required)")
	fs.StringVar(&f.listen, "listen", "", "address such as :8081 for /healthz, /readyz, /leader and /metrics (default none)")
	fs.DurationVar(&f.grace, "grace", 25*time.Second, "time from SIGTERM to SIGKILL, cut short if the lease is about to end; 0 for as long as the lease can be kept")
	fs.BoolVar(&f.restart, "restart", false, "when the program ends, campaign again, after 1 s at first and a minute at most")
	fs.DurationVar(&f.leaseDuration, "lease-duration", 15*time.Second, "how long other replicas wait after the last renewal before one takes over")
	fs.DurationVar(&f.renewDeadline, "renew-deadline", 10*time.Second, "how long to lead without a successful renewal")
	fs.DurationVar(&f.retryPeriod, "retry-period", 2*time.Second, "pause after an error, and between readings where the Lease cannot be watched")
	f.election.add(fs)
	fs.StringVarP(&f.verbosity, "v", "v", "0", "verbosity of the log")
	_ = cmd.RegisterFlagCompletionFunc("lease", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return f.kube.completeLeases(cmd, nil, typed)
	})
	return cmd
}

// ownFailure is the exit code for what is not the program's doing.
func ownFailure(err error) error {
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &exitError{code: exitOwnFailure, err: err}
}

// runLogged runs with a standard error that can stop nothing, and says there what went wrong.
func (f *runFlags) runLogged(ctx context.Context, args []string) error {
	r, err := f.runner(args)
	if err != nil {
		return ownFailure(err)
	}
	disregard(syscall.SIGPIPE)
	stderr, err := relayStderr()
	if err != nil {
		return ownFailure(err)
	}
	defer stderr.close()
	var level klog.Level
	if err := level.Set(f.verbosity); err != nil { // not before: client-go logs that it reads a kubeconfig
		return ownFailure(err)
	}
	return &exitError{code: exitCode(ownFailure(f.run(ctx, r)), os.Stderr.WriteString)}
}

func (f *runFlags) run(ctx context.Context, r *runner) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if f.listen != "" {
		server, err := serve(f.listen, r.elector, r.numbers)
		if err != nil {
			return err
		}
		defer server.Close()
	}
	writeFromBackground()
	becomeSubreaper()
	r.others = map[int]bool{}
	for _, p := range descendants(os.Getpid(), nil) {
		r.others[p.pid] = true
	}
	go r.passSignals(stop)
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	return reapUntil(done)
}

// runner reports all mistakes at once.
func (f *runFlags) runner(args []string) (*runner, error) {
	var errs []error
	if _, err := strconv.ParseInt(f.verbosity, 10, 32); err != nil {
		errs = append(errs, fmt.Errorf("-v: %w", err))
	}
	if f.lease == "" {
		errs = append(errs, errors.New("--lease is required: the Lease to lead by, such as shop/batch"))
	}
	if f.grace < 0 {
		errs = append(errs, errors.New("--grace: must not be negative"))
	}
	errs = append(errs, checkProc())
	r := &runner{flags: f, renewed: make(chan struct{}, 1), numbers: metrics.New()}
	if len(args) == 0 {
		errs = append(errs, errors.New("no program: give it after --, as in: elector run --lease shop/batch -- ./batch.sh"))
	} else {
		var err error
		if r.command, err = findCommand(args); err != nil {
			errs = append(errs, err)
		}
	}
	if f.lease == "" {
		return nil, errors.Join(errs...)
	}
	t, err := f.kube.target(f.lease)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	r.lease = t
	opts := elector.Options{
		Namespace:     t.namespace,
		Name:          t.name,
		Run:           r.lead,
		LeaseDuration: f.leaseDuration,
		RenewDeadline: f.renewDeadline,
		RetryPeriod:   f.retryPeriod,
		Metrics:       renewals{r.numbers, r.renewed},
		StateDir:      "-", // its lock would end with this process, and the program's processes a moment later
	}
	errs = append(errs, f.election.set(&opts, t))
	r.elector, err = elector.NewForConfig(t.config, opts)
	return r, errors.Join(append(errs, err)...)
}

// A runner runs the program whenever this replica leads.
type runner struct {
	flags   *runFlags
	lease   target
	command command
	elector *elector.Elector
	numbers *metrics.Collector
	renewed chan struct{}         // holds a token when the lease was renewed since it was last read
	began   time.Time             // when the program was last started
	others  map[int]bool          // what is below elector from the start on, and no business of its
	whole   context.Context       // ends when elector is to end
	guard   *guard                // the next one, nil if none was started yet
	running atomic.Pointer[guard] // the program's; nil while none runs

	interrupted bool // the program was ended by the terminal's Ctrl-C, which elector does not get then
}

// renewals are the metrics, and a knock at each renewal.
type renewals struct {
	*metrics.Collector
	knock chan<- struct{}
}

func (r renewals) Renewed(lease types.NamespacedName, latency, left, renewDeadline time.Duration) {
	r.Collector.Renewed(lease, latency, left, renewDeadline)
	select {
	case r.knock <- struct{}{}:
	default:
	}
}

func (r *runner) run(ctx context.Context) error {
	r.whole = ctx
	if err := r.prepare(); err != nil {
		return err // without a guard there is nothing to campaign for
	}
	defer func() {
		if r.guard != nil {
			r.guard.dismiss()
		}
	}()
	log := klog.FromContext(ctx)
	const longest = time.Minute
	for pause := time.Second; ; pause = min(2*pause, longest) {
		err := r.elector.Run(ctx)
		if ctx.Err() != nil || !r.flags.restart || r.interrupted {
			return quiet(err)
		}
		if time.Since(r.began) > longest {
			pause = time.Second
		}
		log.Info("Campaigning again", "after", pause, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// prepare starts a guard for the next term, if there is none.
func (r *runner) prepare() (err error) {
	if r.guard == nil || r.guard.hasEnded() {
		r.guard, err = startGuard(r.command)
	}
	return err
}

// quiet takes the words from a program's exit code: the program has said itself what was wrong.
func quiet(err error) error {
	var exit *exitError
	if errors.As(err, &exit) && exit.err == nil {
		return &exitError{code: exit.code}
	}
	return err
}

// passSignals stops elector on SIGTERM and SIGINT, and passes the others on to the program's first process.
func (r *runner) passSignals(stop func()) {
	signals := make(chan os.Signal, 16)
	terminal := hasTerminal()
	for _, sig := range append([]os.Signal{syscall.SIGTERM, syscall.SIGINT}, passedOn...) {
		if sig != syscall.SIGHUP || !signal.Ignored(sig) { // as by nohup
			signal.Notify(signals, sig)
		}
	}
	for sig := range signals {
		switch {
		case sig == syscall.SIGTERM || sig == syscall.SIGINT:
			stop()
		case sig == syscall.SIGHUP && terminal && (ownsTerminal() || !hasTerminal()):
			stop() // the terminal is gone, or the shell ends
		default:
			if g := r.running.Load(); g != nil {
				g.signal(sig.(syscall.Signal))
			}
		}
	}
}

// lead is the elector's callback: it returns when no process of the program is left.
func (r *runner) lead(ctx context.Context) error {
	log := klog.FromContext(ctx)
	term, _ := elector.TermFrom(ctx)
	d := deadlines{term: term, budget: r.flags.leaseDuration - r.flags.renewDeadline, recovery: r.flags.election.recoveryDeadline, from: term.ValidUntil()}
	if d.from.IsZero() {
		return nil // lost before it began
	}
	r.began = time.Now()
	p, err := r.start(term, &d)
	if err != nil {
		return ownFailure(err)
	}
	log.Info("Started the program", "program", r.command.argv[0], "pid", p.pid, "term", term.Token())
	end := r.supervise(ctx, p, &d)
	p.passHangUp()
	log.Info("The program has ended", "how", end.String(), "after", time.Since(r.began).Round(time.Millisecond))
	r.interrupted = p.terminal && end.status.Signaled() && end.status.Signal() == syscall.SIGINT
	if r.whole.Err() == nil && (ctx.Err() != nil || r.flags.restart) {
		if err := r.prepare(); err != nil {
			log.Error(err, "The next term begins later for that: a guard has to be started first")
		}
	}
	return errors.Join(ownFailure(end.lost), end.result(context.Cause(ctx)))
}

// start starts the program for a term. If it cannot, no process of the program is left.
func (r *runner) start(term elector.Term, d *deadlines) (*program, error) {
	if err := r.prepare(); err != nil {
		return nil, err
	}
	g := r.guard
	r.guard = nil
	p := &program{guard: g, identity: "ELECTOR_IDENTITY=" + term.Identity(), others: r.others, told: map[int]bool{}}
	place := background
	if ownsTerminal() {
		place, p.terminal = foreground, true
	}
	env := []string{
		p.identity,
		"ELECTOR_LEASE=" + r.lease.String(),
		"ELECTOR_TOKEN=" + strconv.FormatUint(term.Token(), 10),
	}
	var err error
	if p.pid, err = g.start(place, env, d.guard(), d.kill()); err != nil {
		g.dismiss()
		<-g.end
		p.sweep()
		p.gone()
		return nil, err
	}
	r.running.Store(g)
	return p, nil
}

// deadlines are worked out from the last renewal that is known.
type deadlines struct {
	term     elector.Term
	budget   time.Duration // from the end of the authority to that of the lease
	recovery time.Duration // for how long the program may go on without authority; 0 once it is asked to end
	from     time.Time     // the end of the authority
}

// renew takes in a renewal. A term that has ended keeps the deadlines it had.
func (d *deadlines) renew() {
	if until := d.term.ValidUntil(); !until.IsZero() {
		d.from = until
	}
}

// stop takes in that the program is asked to end, and reports whether that brings the deadlines nearer. One whose term was
// suspended has its time to stop from now on.
func (d *deadlines) stop() bool {
	if d.recovery == 0 {
		return false
	}
	d.recovery = 0
	if now := time.Now(); now.After(d.from) {
		d.from = now
	}
	return true
}

// kill is when elector kills the program, and guard is when the guard does if elector has not. What is left after that
// is for clocks of different rates.
func (d *deadlines) kill() time.Time  { return d.from.Add(d.recovery + d.budget/2) }
func (d *deadlines) guard() time.Time { return d.from.Add(d.recovery + d.budget*3/4) }

// often is how often to look for what comes without news.
const often = 20 * time.Millisecond

// supervise returns when the program is gone: the first process and all others.
func (r *runner) supervise(ctx context.Context, p *program, d *deadlines) (e ending) {
	defer func() { r.running.Store(nil); p.gone() }()
	patience := max(r.flags.renewDeadline/2, 2*time.Second) // renewals come more often
	var grace, poll <-chan time.Time
	terminate := sync.OnceFunc(func() {
		p.terminate()
		if r.flags.grace > 0 {
			grace = time.After(r.flags.grace)
		}
	})
	overdue := time.NewTimer(time.Until(d.kill()))
	defer overdue.Stop()
	for stopping := ctx.Done(); ; {
		select {
		case <-r.renewed:
			p.passHangUp()
			d.renew()
			if e.lost == nil && p.guard.silent() > patience {
				e.lost, poll = errGuard, time.After(often)
				p.guard.wake()
				terminate()
			}
			p.guard.extend(d.guard())
			overdue.Reset(time.Until(d.kill()))
		case <-stopping:
			stopping, e.asked = nil, !e.ended
			if d.stop() {
				p.guard.silent()
				p.guard.extend(d.guard())
				overdue.Reset(time.Until(d.kill()))
			}
			terminate()
		case <-grace:
			e.killed, poll = true, time.After(0)
		case <-overdue.C:
			e.killed, poll = true, time.After(0)
		case e.status = <-p.guard.ended:
			e.ended, p.ended, poll = true, true, time.After(often/10) // mostly it was the last one, and the guard's end comes next
		case guard := <-p.guard.end:
			return r.afterGuard(p, e, guard)
		case <-poll:
			poll = time.After(often)
			if e.killed {
				p.kill()
			} else if e.ended {
				terminate()
				p.terminateLeftBehind()
			}
			if p.guard.silent() > patience {
				p.guard.dismiss() // nothing has woken it
			}
			p.guard.extend(d.guard())
		}
	}
}

// afterGuard is the end of a program whose guard has ended: because all of the program has, or before that.
func (r *runner) afterGuard(p *program, e ending, guard *os.ProcessState) ending {
	select {
	case e.status = <-p.guard.ended:
		e.ended = true
	default:
	}
	if guard.Success() && e.ended {
		return e
	}
	if e.lost == nil && !e.killed {
		e.lost = errGuard
	}
	p.sweep()
	if !e.ended {
		e.status = syscall.WaitStatus(syscall.SIGKILL)
	}
	return e
}

// An ending is how the program's first process ended, and why.
type ending struct {
	status syscall.WaitStatus
	ended  bool  // there is a status
	asked  bool  // it was there when it was asked to end
	killed bool  // SIGKILL was sent
	lost   error // the guard had died
}

func (e ending) String() string {
	if e.status.Signaled() {
		return "signal: " + e.status.Signal().String()
	}
	return fmt.Sprintf("exit code %d", e.status.ExitStatus())
}

// result is the callback's. To have ended by the SIGTERM that elector sent is to have done what was asked.
func (e ending) result(cause error) error {
	switch {
	case e.asked && errors.Is(cause, elector.ErrLost):
		return nil // it campaigns again, whatever the exit code
	case e.status.Signaled() && e.asked && e.status.Signal() == syscall.SIGTERM:
		return nil
	case e.status.Signaled():
		return &exitError{code: 128 + int(e.status.Signal())}
	case e.status.ExitStatus() != 0:
		return &exitError{code: e.status.ExitStatus()}
	}
	return nil
}
