package elector_test

import (
	"context"
	"fmt"
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
	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// The whole of a program: its work runs in one replica at a time, moves on within milliseconds when that one is
// stopped, and stops and starts again when leadership is lost.
func Example() {
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cfg, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG")) // in a pod: the pod's own
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

// TestMain gives the Example above an API server to run against, one that sends SIGTERM as soon as somebody leads.
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

func TestTheReadmesProgramIsTheExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)

	_, program, found := strings.Cut(string(readme), "```go\npackage main\n")
	require.True(t, found, "README.md has a program")
	program, _, _ = strings.Cut(program, "```")
	assert.LessOrEqual(t, strings.Count(program, "\n")+1, 25, "lines")

	_, body, _ := strings.Cut(program, "func main() {\n")
	body, _, _ = strings.Cut(body, "\n}\n")
	assert.Contains(t, string(source), "func Example() {\n"+body+"\n\t// Output:")
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
			// Store the token beside what you write: a later leader's is greater.
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

func TestTheReadmesTestIsATest(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("electortest/example_test.go")
	require.NoError(t, err)
	_, code, found := strings.Cut(string(readme), "```go\nfunc Test")
	require.True(t, found)
	code, _, _ = strings.Cut(code, "```")
	assert.Contains(t, string(source), "func Test"+code)
}

func TestTheReadmeNamesEveryOption(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[elector.Options]()) {
		assert.Contains(t, string(readme), "\n| `"+f.Name+"` |")
	}
}
