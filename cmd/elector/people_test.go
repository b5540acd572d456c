//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector/e2e/cluster"
	"github.com/elector-go/elector/internal/reading"
)

// ask runs a command to its end.
func (s *stage) ask(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	return s.askBy(s.command(args...))
}

func (s *stage) askBy(cmd *exec.Cmd) (code int, stdout, stderr string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	require.True(s.t, err == nil || errors.As(err, &exit), "%v", err)
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// hold writes a Lease as somebody's, renewed so long ago.
func (s *stage) hold(holder string, ago time.Duration) {
	s.t.Helper()
	seconds, then := int32(15), metav1.NowMicro()
	then.Time = then.Add(-ago)
	_, err := shared.Admin().CoordinationV1().Leases(s.namespace).Create(s.t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "batch"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, AcquireTime: &then, RenewTime: &then},
	}, metav1.CreateOptions{})
	require.NoError(s.t, err)
}

func TestStatusOfALeaseThatIsLed(t *testing.T) {
	s := newStage(t)
	s.run(polite).pid("leading")
	holder := s.holder()
	code, out, _ := s.ask("status", s.namespace+"/batch")
	require.Zero(t, code)
	for _, line := range []string{
		`Lease: +` + s.namespace + `/batch`, `State: +held`, `Holder: +` + regexp.QuoteMeta(holder), `Leads since: .*\(\d+s\)`,
		`Last renewal: +[\d.]+m?s ago`, `Expires in: +[\d.]+s of 15s, unless renewed`, `Transitions: +\d`,
	} {
		require.Regexp(t, `(?m)^`+line+`$`, out)
	}
	require.NotContains(t, out, "\n\n", "advice where none is needed")

	code, out, _ = s.ask("status", "-n", s.namespace, "batch", "-o", "json")
	require.Zero(t, code)
	var r report
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, []any{reading.Held, holder, "15s"}, []any{r.State, r.Holder, r.Duration})
	require.WithinDuration(t, time.Now(), *r.LastRenewal, time.Minute)
	require.Equal(t, 15*time.Second, r.Expires.Sub(*r.LastRenewal))
	require.Empty(t, r.Advice)
}

func TestStatusSaysWhatToDoWhenNobodyLeads(t *testing.T) {
	t.Run("NoLease", func(t *testing.T) {
		s := newStage(t)
		code, out, errs := s.ask("status", s.namespace+"/batch")
		require.Equal(t, exitNobody, code)
		require.Regexp(t, `State: +missing`, out)
		require.Contains(t, out, "No such Lease")
		require.Empty(t, errs)
	})
	t.Run("Released", func(t *testing.T) {
		s := newStage(t)
		code, _, _ := s.ask("run", "--lease", s.namespace+"/batch", "--", "true")
		require.Zero(t, code)
		code, out, _ := s.ask("status", s.namespace+"/batch", "-o=json")
		require.Equal(t, exitNobody, code)
		require.Contains(t, out, `"state": "free"`)
		require.Contains(t, out, "Nobody leads")
	})
	t.Run("Crashed", func(t *testing.T) {
		s := newStage(t)
		s.hold("vm_0f0e0d0c-0000-4000-8000-000000000000", time.Minute)
		code, out, _ := s.ask("status", s.namespace+"/batch")
		require.Equal(t, exitNobody, code)
		require.Regexp(t, `State: +expired`, out)
		require.Contains(t, out, "Do not delete the Lease")
	})
}

// What is judged of a record, without a server.
func TestStatusAdvises(t *testing.T) {
	now := time.Now()
	holder, seconds, renewed := "pod-1_x", int32(15), metav1.NewMicroTime(now.Add(-time.Second))
	for _, c := range []struct {
		name, advice string
		state        reading.State
		edit         func(*coordinationv1.Lease)
	}{
		{"well", "", reading.Held, func(l *coordinationv1.Lease) {}},
		{"late", "the holder is late", reading.Held, func(l *coordinationv1.Lease) { l.Spec.RenewTime.Time = now.Add(-9 * time.Second) }},
		{"in the future", "in the future", reading.Held, func(l *coordinationv1.Lease) { l.Spec.RenewTime.Time = now.Add(time.Minute) }},
		{"late by a third", "the holder is late", reading.Held, func(l *coordinationv1.Lease) { l.Spec.RenewTime.Time = now.Add(-6 * time.Second) }},
		{"of a long Lease, and well", "", reading.Held, func(l *coordinationv1.Lease) {
			*l.Spec.LeaseDurationSeconds, l.Spec.RenewTime.Time = 3600, now.Add(-29*time.Second)
		}},
		{"edited", "when it has stayed the same for 15s", reading.Edited, func(l *coordinationv1.Lease) { l.Spec.RenewTime = nil }},
		{"blanked", "The holder's name was removed, which is no release", reading.Edited, func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }},
		{"without a duration", "Candidates take it for 15s", reading.Held, func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = nil }},
		{"released with notice", "it is free in 14s", reading.Free, func(l *coordinationv1.Lease) {
			l.Spec.HolderIdentity, l.Spec.AcquireTime = nil, l.Spec.RenewTime
		}},
		{"paused", "elector resume shop/batch", reading.Paused, func(l *coordinationv1.Lease) { *l.Spec.HolderIdentity = "paused" }},
		{"asked to step down", "was asked to step down", reading.Held, func(l *coordinationv1.Lease) {
			l.Annotations = map[string]string{stepDownAnnotation: ""}
		}},
		{"short", "little time", reading.Held, func(l *coordinationv1.Lease) { *l.Spec.LeaseDurationSeconds = 2 }},
	} {
		holder, seconds, renewed := holder, seconds, renewed
		l := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &renewed}}
		c.edit(l)
		r := describe(target{namespace: "shop", name: "batch"}, l, now)
		require.Equal(t, c.state, r.State, c.name)
		if c.advice == "" {
			require.Empty(t, r.Advice, c.name)
		} else {
			require.Len(t, r.Advice, 1, c.name)
			require.Contains(t, r.Advice[0], c.advice, c.name)
		}
	}
}

func TestFollowPrintsEachChange(t *testing.T) {
	s := newStage(t)
	people, programs := s.start(s.command("follow", s.namespace+"/batch")), s.start(s.command("follow", s.namespace+"/batch", "-o", "json"))
	people.says("(nobody)")
	programs.says(`"holder":""`)
	leader, standby, _ := s.pair(polite)
	first := s.holder()
	people.says(first)
	programs.says(first)
	leader.signal(syscall.SIGTERM)
	standby.pid("leading")
	second := s.holder()
	require.NotEqual(t, first, second)
	people.says(second)
	programs.says(second)
	var holders []string
	for dec := json.NewDecoder(strings.NewReader(programs.String())); ; {
		var line struct {
			Time   time.Time
			Holder string
		}
		err := dec.Decode(&line)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), line.Time, time.Minute)
		holders = append(holders, line.Holder)
	}
	// Between the two nobody leads for some milliseconds, which Follow may leave out where its reader is slow.
	require.Contains(t, [][]string{{"", first, "", second}, {"", first, second}}, holders)
	people.signal(syscall.SIGINT)
	require.Zero(t, people.exitCode())
}

func TestStepDown(t *testing.T) {
	t.Run("AndWait", func(t *testing.T) {
		s := newStage(t)
		_, standby, pid := s.pair(polite)
		first := s.holder()
		code, out, errs := s.ask("step-down", "-wait", s.namespace+"/batch")
		require.Zero(t, code, errs)
		require.Equal(t, "asked "+first+" to step down\n", out[:strings.Index(out, "\n")+1])
		require.Regexp(t, `\n`+s.holder()+` leads, after [\d.]+m?s`, out)
		require.NotEqual(t, first, s.holder())
		standby.pid("leading")
		require.False(t, alive(pid))
	})
	t.Run("ToOneOfTwo", func(t *testing.T) {
		s := newStage(t)
		_, _, _ = s.pair(polite)
		third := s.run(polite)
		third.says("New leader")
		_, identity, _ := strings.Cut(third.String(), `identity="`)
		identity, _, _ = strings.Cut(identity, `"`)
		code, out, errs := s.ask("step-down", "--to", identity, "--wait", s.namespace+"/batch")
		require.Zero(t, code, errs)
		require.Contains(t, out, identity+" leads, after ")
		third.pid("leading")

		code, out, _ = s.ask("step-down", "--to", identity, s.namespace+"/batch")
		require.Zero(t, code)
		require.Contains(t, out, "leads "+s.namespace+"/batch already")
	})
	t.Run("ToOneThatDoesNotCome", func(t *testing.T) {
		s := newStage(t)
		_, standby, _ := s.pair(polite, short6...)
		code, _, errs := s.ask("step-down", "--to", "pod-9", "--wait", s.namespace+"/batch")
		require.Equal(t, exitFailed, code)
		require.Contains(t, errs, "leads, not pod-9")
		standby.pid("leading")
	})
	t.Run("WhenNobodyLeads", func(t *testing.T) {
		s := newStage(t)
		code, _, errs := s.ask("step-down", s.namespace+"/batch")
		require.Equal(t, exitNobody, code)
		require.Contains(t, errs, "nobody leads")
	})
	t.Run("OfOneThatIsDead", func(t *testing.T) {
		s := newStage(t)
		s.hold("vm_0f0e0d0c-0000-4000-8000-000000000000", time.Minute)
		began := time.Now()
		code, out, errs := s.ask("step-down", "--wait", s.namespace+"/batch")
		require.Equal(t, exitNobody, code)
		require.Less(t, time.Since(began), time.Minute, "it does not wait") // as long as --timeout
		require.Empty(t, out)
		require.Contains(t, errs, "nobody leads "+s.namespace+"/batch (expired): there is nobody to ask")
		require.Contains(t, errs, "the holder has crashed or is cut off")
	})
	t.Run("OfAnotherLibrary", func(t *testing.T) {
		s := newStage(t)
		s.hold("vm_0f0e0d0c-0000-4000-8000-000000000000", 0)
		code, out, errs := s.ask("step-down", "--wait", "--timeout=2s", s.namespace+"/batch")
		require.Equal(t, exitFailed, code)
		require.Contains(t, out, "asked vm_0f0e0d0c")
		require.Contains(t, errs, "still leads after 2s")
		require.Contains(t, errs, "delete its pod instead")
	})
}

func TestErrorsSayWhatToDo(t *testing.T) {
	s := newStage(t)
	lease := s.namespace + "/batch"
	for _, args := range [][]string{{"status", lease}, {"follow", lease}, {"step-down", lease}, {"run", "--lease", lease, "--", "true"}} {
		cmd := s.command(args...)
		cmd.Env = append(cmd.Env, "KUBECONFIG=", "HOME="+t.TempDir())
		code, _, errs := s.askBy(cmd)
		require.Equal(t, map[bool]int{true: exitOwnFailure, false: exitFailed}[args[0] == "run"], code)
		require.Equal(t, "elector: no cluster is configured: set $KUBECONFIG or --kubeconfig, or run in a pod with a service account\n", errs)
	}
	for _, c := range []struct{ args, says string }{
		{"status -n " + s.namespace + "-other batch", "grant the verb get on leases.coordination.k8s.io"},
		{"status --kubeconfig /no/such/file " + lease, "the kubeconfig of --kubeconfig: stat /no/such/file: no such file"},
		{"status --context other " + lease, `the kubeconfig (--kubeconfig, $KUBECONFIG or ~/.kube/config): context "other" does not exist`},
		{"status --token nobody " + lease, "does not accept the credentials"},
		{"status --server https://127.0.0.1:1 " + lease, "cannot reach the API server https://127.0.0.1:1"},
		{"status -n other " + lease, "give the namespace once"},
		{"status " + s.namespace + "/Batch", `the Lease's name "Batch"`},
		{"status", "give one Lease"},
		{"status a b", "give one Lease"},
		{"status -o yaml " + lease, "the only other format is json"},
		{"lead " + lease, `unknown command "lead"`},
	} {
		code, out, errs := s.ask(strings.Fields(c.args)...)
		require.Equal(t, exitFailed, code, c.args)
		require.Contains(t, errs, c.says, c.args)
		require.Empty(t, out, c.args)
	}
}

// The names of elector.Options are not those of flags.
func TestMistakesInOptionsAreNamedByTheirFlags(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, cluster.WriteKubeconfig(kubeconfig, &rest.Config{Host: "https://127.0.0.1:1"}))
	for args, says := range map[string]string{
		"--lease-duration 5s":   "--renew-deadline: 10s: must be less than --lease-duration (5s): the difference is the time the program has to stop; set both, or neither (the defaults are 10s and 15s)",
		"--lease-duration 1.5s": "--lease-duration: 1.5s: must be whole seconds",
		"--retry-period 6s":     "--retry-period: 6s: must be at most half of --renew-deadline (10s)",
	} {
		root := newRoot()
		root.SetArgs(append(strings.Fields("run --kubeconfig "+kubeconfig+" --lease shop/batch "+args), "--", "true"))
		var said string
		code := exitCode(root.Execute(), func(s string) (int, error) { said += s; return 0, nil })
		require.Equal(t, exitOwnFailure, code)
		require.True(t, strings.HasPrefix(said, "elector: "+says), said)
		require.NotContains(t, said, "Options.")
	}
}

func TestTabCompletesLeases(t *testing.T) {
	s := newStage(t)
	s.hold("pod-1", 0)
	require.NoError(t, cluster.WriteKubeconfig(s.kubeconfig, shared.AdminConfig())) // it lists
	_, out, _ := s.ask("__complete", "status", "-n", s.namespace, "")
	require.Equal(t, "batch", strings.Split(out, "\n")[0])
}

func TestAsAPluginOfKubectl(t *testing.T) {
	s := newStage(t)
	cmd := s.command("status", "--help")
	cmd.Path = filepath.Join(t.TempDir(), "kubectl-elector")
	cmd.Args[0] = cmd.Path
	require.NoError(t, os.Symlink(os.Args[0], cmd.Path))
	_, out, _ := s.askBy(cmd)
	require.Contains(t, out, "kubectl elector status [namespace/]lease")
}

func TestVersion(t *testing.T) {
	require.Equal(t, "v0.1.0 0f0e go1.26.0", version(&debug.BuildInfo{
		GoVersion: "go1.26.0", Main: debug.Module{Version: "v0.1.0"}, Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0f0e"}},
	}, true))
	root := newRoot()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs([]string{"--version"})
	require.NoError(t, root.Execute())
	require.Equal(t, "elector version "+version(debug.ReadBuildInfo())+"\n", out.String())
}

func TestListen(t *testing.T) {
	s := newStage(t)
	leader, standby, _ := s.pair(polite, "--listen=127.0.0.1:0")
	for _, r := range []*replica{leader, standby} {
		leads := r == leader
		for path, says := range map[string]string{
			"/healthz": "ok", "/readyz": "ok",
			"/leader":  `"leader": "` + s.holder() + `"`,
			"/metrics": map[bool]string{true: `elector_terms_total{name="batch",namespace="` + s.namespace + `"} 1`, false: "elector_requests_total"}[leads],
		} {
			require.Contains(t, r.get(path), says, path)
		}
		var status struct {
			Identity, Leader, Term string
			Leading                bool
		}
		require.NoError(t, json.Unmarshal([]byte(r.get("/leader")), &status))
		require.Equal(t, leads, status.Leading)
		require.Equal(t, leads, status.Identity == status.Leader)
		require.Equal(t, leads, status.Term != "")
	}
	code, _, errs := s.ask("run", "--lease", s.namespace+"/batch", "--listen=nowhere:x", "--", "true")
	require.Equal(t, exitOwnFailure, code)
	require.Contains(t, errs, "--listen")
}

// get asks elector run at the address that its log gives.
func (r *replica) get(path string) string {
	r.s.t.Helper()
	r.says(`"Listening" address="`)
	_, addr, _ := strings.Cut(r.String(), `"Listening" address="`)
	addr, _, _ = strings.Cut(addr, `"`)
	resp, err := http.Get("http://" + addr + path)
	require.NoError(r.s.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(r.s.t, err)
	require.Equal(r.s.t, http.StatusOK, resp.StatusCode, "%s: %s", path, body)
	return string(body)
}
