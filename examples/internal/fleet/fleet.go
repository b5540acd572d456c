// Package fleet runs the examples as fleets of processes on a real API server, for their tests and for the demo.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-go/elector/e2e/cluster"
)

// User is the cluster's user that replicas run as: name it to cluster.Start.
const User = "operator"

// A Fleet is the replicas of one program, in a namespace of their own, and what they have logged.
type Fleet struct {
	Namespace string
	Admin     kubernetes.Interface // may do everything

	cluster *cluster.Cluster
	dir     string
	env     []string

	mu       sync.Mutex    // guards the fields below
	changed  chan struct{} // closed and replaced with each line
	lines    []Line
	replicas []*Replica
}

// New makes a namespace in which User may do what the Roles say. A Role is YAML, as READMEs show it.
func New(ctx context.Context, c *cluster.Cluster, namespace string, roles ...string) (*Fleet, error) {
	if err := c.CreateNamespace(ctx, namespace); err != nil {
		return nil, err
	}
	for _, role := range roles {
		if err := grant(ctx, c.Admin(), namespace, role); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "elector-fleet-")
	if err != nil {
		return nil, err
	}
	f := &Fleet{Namespace: namespace, Admin: c.Admin(), cluster: c, dir: dir, changed: make(chan struct{})}
	return f, f.writeKubeconfig()
}

func (f *Fleet) kubeconfig() string { return filepath.Join(f.dir, "kubeconfig") }

func (f *Fleet) writeKubeconfig() error {
	if err := cluster.WriteKubeconfig(f.kubeconfig(), f.cluster.UserConfig(User)); err != nil {
		return err
	}
	kc, err := clientcmd.LoadFromFile(f.kubeconfig())
	if err != nil {
		return err
	}
	kc.Contexts[kc.CurrentContext].Namespace = f.Namespace
	return clientcmd.WriteToFile(*kc, f.kubeconfig())
}

// Root returns the folder of the examples' module.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/elector-go/elector/examples").Output()
	if err != nil {
		return "", fmt.Errorf("fleet: find the examples' module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Build builds programs of this module and returns the folder they are in, each under its package's last name. The
// packages are named as ./manager is, from the module's root.
func Build(ctx context.Context, packages ...string) (dir string, err error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "elector-examples-"); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir + string(filepath.Separator)}, packages...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("fleet: go build %s: %w\n%s", strings.Join(packages, " "), err, out), os.RemoveAll(dir))
	}
	return dir, nil
}

// A Replica is one process.
type Replica struct {
	Name string
	Addr string // what it was given as -health-probe-bind-address, "" if nothing

	fleet *Fleet
	cmd   *exec.Cmd
	done  chan struct{}
	ended time.Time // when, once done
}

// Addr returns an address of loopback whose port was free a moment ago.
func Addr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// SetEnv sets environment variables, "NAME=value", for the replicas started from now on.
func (f *Fleet) SetEnv(env ...string) { f.env = env }

// Start starts a program as a replica, with $KUBECONFIG for the fleet's user and namespace. Both its outputs are read
// as its log.
func (f *Fleet) Start(name, program string, args ...string) (*Replica, error) {
	r := &Replica{Name: name, fleet: f, done: make(chan struct{}), cmd: exec.Command(program, args...)}
	for _, arg := range args {
		if addr, ok := strings.CutPrefix(arg, "-health-probe-bind-address="); ok {
			r.Addr = addr
		}
	}
	log := &lineWriter{replica: r}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.Env = append(os.Environ(), "KUBECONFIG="+f.kubeconfig(), "KUBERNETES_SERVICE_HOST=") // not the pod's, if this is one
	r.cmd.Env = append(r.cmd.Env, f.env...)
	started := make(chan error)
	go r.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("fleet: start %s: %w", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replicas = append(f.replicas, r)
	return r, nil
}

// Done is closed when the process has ended and its log is read.
func (r *Replica) Done() <-chan struct{} { return r.done }

// Signal sends a signal; to a process that has ended it does nothing.
func (r *Replica) Signal(sig os.Signal) error {
	if err := r.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("fleet: signal %v to %s: %w", sig, r.Name, err)
	}
	return nil
}

// Wait waits for the end of the process, and returns when that was and its exit code, -1 after a signal.
func (r *Replica) Wait(ctx context.Context) (ended time.Time, code int, err error) {
	select {
	case <-r.done:
		return r.ended, r.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return time.Time{}, 0, fmt.Errorf("fleet: %s does not end: %w\nits log:\n%s", r.Name, ctx.Err(), r.fleet.Log(r))
	}
}

// Close kills what still runs.
func (f *Fleet) Close() error {
	f.mu.Lock()
	replicas := f.replicas
	f.mu.Unlock()
	for _, r := range replicas {
		_ = r.Signal(os.Kill)
	}
	for _, r := range replicas {
		<-r.done
	}
	return os.RemoveAll(f.dir)
}

// CreateConfigMaps makes n ConfigMaps that are marked as edit does.
func (f *Fleet) CreateConfigMaps(ctx context.Context, n int, edit func(*corev1.ConfigMap)) error {
	for i := range n {
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("settings-%d", i)},
			Data:       map[string]string{"number": fmt.Sprint(i)},
		}
		edit(cm)
		if _, err := f.Admin.CoreV1().ConfigMaps(f.Namespace).Create(ctx, cm, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("fleet: %w", err)
		}
	}
	return nil
}

// PID is the process's number.
func (r *Replica) PID() int { return r.cmd.Process.Pid }
