package main

import (
	"context"
	"errors"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/e2e/internal/event"
	"github.com/elector-go/elector/internal/termlog"
	"github.com/elector-go/elector/kubelet"
)

// runElector campaigns with this library.
func runElector(ctx context.Context, cfg *rest.Config, c config, w *worker) error {
	deaths, err := deathsOf(cfg, c)
	if err != nil {
		return err
	}
	el, err := elector.NewForConfig(cfg, elector.Options{
		Namespace:     c.namespace,
		Name:          c.lease,
		Identity:      c.id,
		LeaseDuration: c.leaseDuration,
		RenewDeadline: c.renewDeadline,
		RetryPeriod:   c.retryPeriod,

		RecoveryDeadline: c.recoveryDeadline,

		StateDir: c.stateDir,
		Deaths:   deaths,
		Run: func(ctx context.Context) error {
			term, ok := elector.TermFrom(ctx)
			if !ok {
				return errors.New("the callback's context carries no term")
			}
			if c.recoveryDeadline > 0 {
				go reportSuspensions(ctx, term, w.tell)
			}
			return w.work(ctx, term.Token(), term.Valid)
		},
		OnNewLeader: func(id string) { w.tell(event.Event{Kind: event.Leader, Leader: id}) },
		OnOverrun:   func(elector.Term) { w.tell(event.Event{Kind: event.Overrun}) },
	})
	if err != nil {
		return err
	}
	reporting, stop := context.WithCancel(ctx)
	defer stop()
	go reportFailures(reporting, el, w.tell)
	return el.Run(ctx)
}

// reportSuspensions reports each begin and each end of a time in which the term has no authority.
func reportSuspensions(ctx context.Context, term elector.Term, tell func(event.Event)) {
	for {
		held, cancel := term.Context(ctx)
		<-held.Done()
		cancel()
		if ctx.Err() != nil {
			return
		}
		tell(event.Event{Kind: event.Suspended, Valid: term.Valid()})
		if term.Await(ctx) != nil {
			return
		}
		tell(event.Event{Kind: event.Resumed, Token: term.Token(), Valid: term.Valid()})
	}
}

// deathsOf is what package kubelet says, with a file that the test has made in place of a kubelet; nil without it.
func deathsOf(cfg *rest.Config, c config) (elector.Deaths, error) {
	if c.terminationLog == "" {
		return nil, nil
	}
	termlog.Path = func() (string, error) { return c.terminationLog, nil }
	clientset, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	return kubelet.New(clientset.CoreV1().Pods(c.namespace)), nil
}

// reportFailures sends each change of the elector's last error, which is what an operator's status page would show.
func reportFailures(ctx context.Context, el *elector.Elector, tell func(event.Event)) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for last := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := text(el.Status().LastError); err != last {
			last = err
			tell(event.Event{Kind: event.Failure, Err: err})
		}
	}
}
