package elector_test

import (
	"context"
	"errors"
	"fmt"
	"go/format"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/events"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// The whole of a program: its work runs in one replica at a time, moves on within milliseconds when that replica is
// stopped, and stops and starts again when leadership is lost.
func Example() {
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		log.Fatal(err)
	}
	el, err := elector.NewForConfig(cfg, elector.Options{Namespace: "shop", Name: "order-controller", Run: work})
	if err != nil {
		log.Fatal(err)
	}
	if err := el.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: working
}

func work(ctx context.Context) error {
	fmt.Println("working")
	<-ctx.Done()
	return nil
}

// A health endpoint, and an end to a callback that does not stop.
func ExampleElector_Check() {
	cfg, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	el, err := elector.NewForConfig(cfg, elector.Options{
		Namespace: "shop",
		Name:      "order-controller",
		Run:       work,
		OnOverrun: func(elector.Term) { os.Exit(1) },
	})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := el.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	go func() { log.Fatal(http.ListenAndServe(":8081", nil)) }()
	if err := el.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A program that takes part only while it is well. (Elector.StepDown is not for that: it campaigns again.)
func ExampleElector_Run_whileHealthy() {
	el, err := elector.NewForConfig(&rest.Config{Host: "https://127.0.0.1:6443"}, elector.Options{Namespace: "shop", Name: "order-controller", Run: work})
	if err != nil {
		log.Fatal(err)
	}
	awaitHealth := func(healthy bool) {} // yours: it returns when the program is so
	for {
		awaitHealth(true)
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			awaitHealth(false)
			cancel()
		}()
		if err := el.Run(ctx); err != nil {
			log.Fatal(err)
		}
	}
}

// TestMain gives the Example above an API server to run against. The server sends SIGTERM as soon as somebody leads.
func TestMain(m *testing.M) {
	api := electortest.NewServer()
	leases := serveLeases(api)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leases.ServeHTTP(w, r)
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/shop/leases") {
			self, _ := os.FindProcess(os.Getpid())
			time.AfterFunc(100*time.Millisecond, func() { _ = self.Signal(syscall.SIGTERM) })
		}
	}))
	dir, err := os.MkdirTemp("", "elector")
	if err != nil {
		log.Fatal(err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	content := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": %q}}], "users": [{"name": "c", "user": {}}],
		"contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]}`, server.URL)
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		log.Fatal(err)
	}
	os.Setenv("KUBECONFIG", kubeconfig)
	code := m.Run()
	server.CloseClientConnections()
	api.Close()
	os.RemoveAll(dir)
	os.Exit(code)
}

// goBlocks are the README's blocks of Go.
func goBlocks(t *testing.T) []string {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := strings.Split(string(readme), "```go\n")[1:]
	for i := range blocks {
		blocks[i], _, _ = strings.Cut(blocks[i], "```")
	}
	require.Len(t, blocks, 5)
	return blocks
}

func TestTheReadmesProgramIsTheExample(t *testing.T) {
	program := goBlocks(t)[0]
	assert.LessOrEqual(t, strings.Count(program, "\n"), 35, "lines")
	formatted, err := format.Source([]byte(program))
	require.NoError(t, err)
	assert.Equal(t, string(formatted), program)

	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	_, body, _ := strings.Cut(program, "func main() {\n")
	body, _, _ = strings.Cut(body, "\n}\n")
	assert.Contains(t, string(source), "func Example() {\n"+body+"\n\t// Output:")
}

func TestTheReadmesOtherCodeIsTested(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	assert.Contains(t, string(source), goBlocks(t)[1])
	source, err = os.ReadFile("electortest/example_test.go")
	require.NoError(t, err)
	_, test, found := strings.Cut(goBlocks(t)[4], ")\n\n")
	require.True(t, found, "the imports")
	assert.Contains(t, string(source), test)
}

func ExampleElector_StepDown() {
	api := electortest.NewServer()
	defer api.Close()
	ctx, stop := context.WithCancel(context.Background())
	stepped := make(chan struct{})
	el, err := elector.New(api.Client("a").CoordinationV1(), elector.Options{
		Namespace: "shop", Name: "order-controller", Identity: "a",
		Run: func(ctx context.Context) error {
			<-ctx.Done()
			fmt.Println(context.Cause(ctx))
			close(stepped)
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- el.Run(ctx) }()
	for !el.IsLeader() {
		time.Sleep(time.Millisecond)
	}
	if err := el.StepDown(ctx); err != nil {
		log.Fatal(err)
	}
	<-stepped
	fmt.Printf("leader: %q\n", el.Leader())
	stop()
	fmt.Println(<-ended)
	// Output:
	// elector: leadership lost: stepped down
	// leader: ""
	// <nil>
}

func ExampleTermFrom() {
	api := electortest.NewServer()
	defer api.Close()
	el, err := elector.New(api.Client("a").CoordinationV1(), elector.Options{
		Namespace: "shop", Name: "order-controller", Identity: "a",
		Run: func(ctx context.Context) error {
			term, _ := elector.TermFrom(ctx)
			// Store the token with what you write: a later leader's is greater.
			fmt.Println(term.Identity(), term.Token() > 0, term.Valid())
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(el.Run(context.Background()))
	// Output:
	// a true true
	// <nil>
}

// A client that writes only while this candidate leads, whatever its user does with contexts.
func ExampleElector_WrapTransport() {
	cfg := &rest.Config{Host: "https://127.0.0.1:6443"}
	el, err := elector.NewForConfig(cfg, elector.Options{Namespace: "shop", Name: "order-controller", Run: work})
	if err != nil {
		log.Fatal(err)
	}
	gated := rest.CopyConfig(cfg)
	gated.Wrap(el.WrapTransport)
	client := kubernetes.NewForConfigOrDie(gated)
	err = client.CoreV1().Pods("shop").Delete(context.Background(), "orders-0", metav1.DeleteOptions{})
	fmt.Println(errors.Is(err, elector.ErrNotLeader)) // nobody has called el.Run
	// Output: true
}

// Who leads, for a program that does not take part.
func ExampleFollow() {
	api := electortest.NewServer()
	defer api.Close()
	leases := api.Client("dashboard").CoordinationV1()
	done := make(chan struct{})
	el, err := elector.New(leases, elector.Options{
		Namespace: "shop", Name: "order-controller", Identity: "a",
		Run: func(context.Context) error { <-done; return nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = el.Run(context.Background()) }()

	holders, err := elector.Follow(context.Background(), leases, "shop", "order-controller")
	if err != nil {
		log.Fatal(err)
	}
	led := false
	for holder := range holders {
		switch {
		case holder != "":
			fmt.Println(holder, "leads")
			led = true
			close(done)
		case led:
			fmt.Println("nobody leads")
			return
		}
	}
	// Output:
	// a leads
	// nobody leads
}

// The Status as JSON, on a standby as on the leader.
func ExampleElector_ServeHTTP() {
	api := electortest.NewServer()
	defer api.Close()
	el, err := elector.New(api.Client("a").CoordinationV1(), elector.Options{
		Namespace: "shop", Name: "order-controller", Identity: "a", Run: work,
	})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/leader", el)
	answer := httptest.NewRecorder()
	http.DefaultServeMux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/leader", nil))
	fmt.Print(answer.Body)
	// Output:
	// {
	//   "identity": "a",
	//   "leader": "",
	//   "leading": false
	// }
}

// A callback that cannot start twice: Elector.Run returns when a term is lost, and says why.
func ExampleLostError() {
	api := electortest.NewServer()
	defer api.Close()
	var el *elector.Elector
	el, err := elector.New(api.Client("a").CoordinationV1(), elector.Options{
		Namespace: "shop", Name: "order-controller", Identity: "a", SingleTerm: true,
		Run: func(ctx context.Context) error {
			go func() { _ = el.StepDown(context.Background()) }()
			<-ctx.Done()
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	err = el.Run(context.Background())
	var lost *elector.LostError
	if errors.As(err, &lost) {
		fmt.Println(lost.Reason, "-", err)
	}
	// Output: stepped down - elector: leadership lost: stepped down
}

// newEvents makes an EventRecorder of one from client-go/tools/events, as a controller-runtime manager's
// GetEventRecorder returns it.
type newEvents struct{ events.EventRecorder }

func (e newEvents) Event(object runtime.Object, eventtype, reason, message string) {
	e.Eventf(object, nil, eventtype, reason, "Elect", "%s", message)
}

// The recorder of client-go/tools/events instead of that of client-go/tools/record.
func ExampleEventRecorder() {
	recorder := events.NewFakeRecorder(10)
	api := electortest.NewServer()
	defer api.Close()
	el, err := elector.New(api.Client("a").CoordinationV1(), elector.Options{
		Namespace: "shop", Name: "order-controller", Identity: "a",
		Run:    func(context.Context) error { return nil },
		Events: newEvents{recorder},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := el.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-recorder.Events)
	fmt.Println(<-recorder.Events)
	// Output:
	// Normal LeaderElection a became leader
	// Normal LeaderElection a stopped leading: the callback returned
}

func TestTheReadmeNamesEveryOption(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[elector.Options]()) {
		assert.True(t, strings.Contains(string(readme), "\n| `"+f.Name+"` |"), "README.md names Options.%s", f.Name)
	}
}
