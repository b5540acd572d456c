//go:build linux

package main

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/internal/reading"
)

var batch = target{namespace: "shop", name: "batch"}

// by is a Lease that somebody holds for 15 s and renewed so long ago.
func by(holder string, ago time.Duration) *coordinationv1.Lease {
	seconds, then := int32(15), metav1.NewMicroTime(time.Now().Add(-ago))
	return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, AcquireTime: &then, RenewTime: &then}}
}

// paused is a Lease that elector pause has written so long ago, in place of one that bound for held.
func paused(t *testing.T, length, held, ago time.Duration) *coordinationv1.Lease {
	l := by(reading.Pauser, ago)
	*l.Spec.LeaseDurationSeconds = int32(length / time.Second)
	note, err := json.Marshal(reading.Pause{At: *l.Spec.RenewTime, By: "me", Held: int32(held / time.Second)})
	require.NoError(t, err)
	l.Annotations = map[string]string{reading.PauseAnnotation: string(note)}
	return l
}

func TestHowLongAPauseMayBe(t *testing.T) {
	for _, c := range []struct {
		lease  *coordinationv1.Lease
		length time.Duration
		says   string // "" if it may
		held   int32
	}{
		{nil, time.Hour, "No such Lease", 0},
		{by("pod-1", 0), time.Hour, "", 15},
		{by("pod-1", 0), 15 * time.Second, "", 15},
		{by("pod-1", 0), 14 * time.Second, "must be at least 15s, for which pod-1 may go on", 0},
		{by("pod-1", time.Hour), 14 * time.Second, "must be at least 15s", 0}, // the clocks may differ
		{by("", 0), time.Second, "", 0},
		{by("pod-1", 0), 0, "whole seconds", 0},
		{by("pod-1", 0), 90500 * time.Millisecond, "whole seconds", 0},
		{by("pod-1", 0), 100 * 365 * 24 * time.Hour, "whole seconds", 0},
		{paused(t, time.Hour, 30*time.Second, time.Minute), 2 * time.Hour, "", 30},
		{paused(t, time.Hour, 30*time.Second, time.Minute), time.Minute, "resume it first", 0},
		{paused(t, time.Hour, 30*time.Second, 2*time.Hour), time.Minute, "", 0},
	} {
		now := time.Now()
		p, err := pauses(batch, describe(batch, c.lease, now), c.length, reading.Pause{At: metav1.NewMicroTime(now), By: "me", Reason: "why"}, now)
		if c.says != "" {
			require.ErrorContains(t, err, c.says)
			continue
		}
		require.NoError(t, err)
		var note reading.Pause
		require.NoError(t, json.Unmarshal([]byte(p.annotations[reading.PauseAnnotation].(string)), &note))
		assert.Equal(t, []any{"me", "why", c.held}, []any{note.By, note.Reason, note.Held})
		assert.Equal(t, []any{"paused", int32(c.length / time.Second)}, []any{p.spec["holderIdentity"], p.spec["leaseDurationSeconds"]})
	}
}

func TestAResumptionGivesTheLeaderBeforeItsTime(t *testing.T) {
	for _, c := range []struct {
		held, ago, notice time.Duration
	}{
		{15 * time.Second, time.Second, 15 * time.Second},
		{15 * time.Second, time.Minute, 15 * time.Second},
		{15 * time.Second, 2 * time.Minute, 0},
		{15 * time.Second, -time.Minute, 15 * time.Second}, // the clocks differ
		{0, time.Second, 0},                                // nobody led
		{137 * time.Second, 3 * time.Minute, 137 * time.Second},
	} {
		now := time.Now()
		assert.Equal(t, c.notice, noticeOf(describe(batch, paused(t, time.Hour, c.held, c.ago), now), now), "%+v", c)
	}
	now := time.Now()
	byKubectl := by(reading.Pauser, time.Second)
	*byKubectl.Spec.LeaseDurationSeconds = 3600
	assert.Equal(t, 15*time.Second, noticeOf(describe(batch, byKubectl, now), now))
}

func TestWhatMayBeFreed(t *testing.T) {
	edited := by("pod-1", 0)
	edited.Spec.RenewTime = nil
	for _, c := range []struct {
		lease      *coordinationv1.Lease
		alive, but string // what is said without and with --the-holder-is-dead, "" if it may be freed
	}{
		{nil, "No such Lease", "No such Lease"},
		{by("", 0), "Nobody leads", "Nobody leads"},
		{by("pod-1", time.Second), "may be alive", ""},
		{by("pod-1", time.Minute), "", ""},
		{edited, "Somebody has edited", ""},
		{paused(t, time.Hour, 0, time.Minute), "use elector resume", "use elector resume"},
	} {
		for dead, says := range map[bool]string{false: c.alive, true: c.but} {
			err := mayFree(batch, describe(batch, c.lease, time.Now()), dead)
			if says == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, says)
			}
		}
	}
}

// A leader that cannot reach the API server does not notice the pause, and works until its own deadline.
func TestAPauseThatIsResumedAtOnceGivesNobodyTheLeaseOfALeaderThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := electortest.NewServer()
		defer api.Close()
		ctx, stop := context.WithCancel(t.Context())
		var replicas sync.WaitGroup
		electors := map[string]*elector.Elector{}
		start := func(name string) {
			el, err := elector.New(api.Client(name).CoordinationV1(), elector.Options{
				Namespace: "shop", Name: "batch", Identity: name,
				Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
			})
			require.NoError(t, err)
			electors[name] = el
			replicas.Go(func() { _ = el.Run(ctx) })
		}
		leases := api.Client("me").CoordinationV1().Leases("shop")
		apply := func(decide func(r report, now time.Time) patch) {
			lease, err := leases.Get(ctx, "batch", metav1.GetOptions{})
			require.NoError(t, err)
			now := time.Now()
			body, err := decide(describe(batch, lease, now), now).onto(lease)
			require.NoError(t, err)
			_, err = leases.Patch(ctx, "batch", types.MergePatchType, body, metav1.PatchOptions{})
			require.NoError(t, err)
		}
		start("a")
		time.Sleep(time.Minute)
		api.Client("a").Partition(electortest.Both)
		apply(func(r report, now time.Time) patch {
			p, err := pauses(batch, r, time.Hour, reading.Pause{At: metav1.NewMicroTime(now), By: "me"}, now)
			require.NoError(t, err)
			return p
		})
		start("b") // has seen nothing of a's renewals
		time.Sleep(time.Second)
		apply(func(r report, now time.Time) patch { return frees(noticeOf(r, now), now) })
		for range 60 {
			require.False(t, electors["a"].IsLeader() && electors["b"].IsLeader())
			time.Sleep(time.Second)
		}
		require.True(t, electors["b"].IsLeader())
		stop()
		replicas.Wait()
	})
}

func TestPauseAndResume(t *testing.T) {
	s := newStage(t)
	leader, standby, pid := s.pair(polite)
	lease := s.namespace + "/batch"
	first := s.holder()
	code, out, errs := s.ask("pause", lease, "--for", "1h", "--reason", "a move")
	require.Zero(t, code, errs)
	require.Contains(t, out, lease+" is paused until ")
	require.Contains(t, out, first+" led: its work has to stop now")
	s.gone(pid)

	code, out, _ = s.ask("status", lease)
	require.Equal(t, exitNobody, code)
	for _, line := range []string{`State: +paused`, `Until: .*\((60m|59m).*\)`, `Paused by: .+@.+, \d+s ago`, `Reason: +a move`} {
		require.Regexp(t, `(?m)^`+line+`$`, out)
	}
	require.NotContains(t, out, "held")
	require.Contains(t, out, "elector resume "+lease)
	_, out, _ = s.ask("status", lease, "-o", "json")
	var r report
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, []any{reading.Paused, "a move"}, []any{r.State, r.PauseReason})
	require.Regexp(t, regexp.MustCompile(`.+@.+`), r.PausedBy)

	code, _, errs = s.ask("step-down", "--wait", lease)
	require.Equal(t, exitNobody, code)
	require.Contains(t, errs, "nobody leads "+lease+" (paused)")
	require.Contains(t, errs, "elector resume "+lease)
	code, _, errs = s.ask("free", "--the-holder-is-dead", lease)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "elector resume "+lease)

	// So soon after the pause the Lease is free when the leader's would have expired.
	code, out, errs = s.ask("resume", lease)
	require.Zero(t, code, errs)
	require.Contains(t, out, "free in 15s")
	code, _, errs = s.ask("resume", lease)
	require.Equal(t, exitNobody, code)
	require.Contains(t, errs, "is not paused")
	s.within("a new leader", func() bool {
		code, _, _ := s.ask("status", lease)
		return code == 0
	})
	got, err := shared.Admin().CoordinationV1().Leases(s.namespace).Get(t.Context(), "batch", metav1.GetOptions{})
	require.NoError(t, err)
	require.NotContains(t, got.Annotations, reading.PauseAnnotation)
	for _, r := range []*replica{leader, standby} {
		require.NotContains(t, strings.ToLower(r.String()), "error")
	}
}

func TestFree(t *testing.T) {
	t.Run("ADeadHolder", func(t *testing.T) {
		s := newStage(t)
		s.hold("pod-1", 0)
		code, _, errs := s.ask("free", s.namespace+"/batch")
		require.Equal(t, exitFailed, code)
		require.Contains(t, errs, "add --the-holder-is-dead")
		code, out, errs := s.ask("free", "--the-holder-is-dead", s.namespace+"/batch")
		require.Zero(t, code, errs)
		require.Contains(t, out, "is free; pod-1 held it")
		_, out, _ = s.ask("status", s.namespace+"/batch", "-o=json")
		require.Contains(t, out, `"state": "free"`)
	})
	t.Run("OneThatExpiredByAWrongClock", func(t *testing.T) {
		s := newStage(t)
		s.hold("pod-1", time.Minute)
		asked := s.start(s.command("free", s.namespace+"/batch"))
		asked.says("making sure")
		_, err := shared.Admin().CoordinationV1().Leases(s.namespace).Patch(t.Context(), "batch", types.MergePatchType,
			[]byte(`{"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		require.Equal(t, exitFailed, asked.exitCode())
		asked.says("has changed meanwhile") // what it has written is read a moment after its end
	})
	t.Run("OneThatHasExpired", func(t *testing.T) {
		s := newStage(t)
		s.hold("pod-1", time.Minute)
		code, out, errs := s.ask("free", s.namespace+"/batch")
		require.Zero(t, code, errs)
		require.Contains(t, out, "is free; pod-1 held it")
	})
}
