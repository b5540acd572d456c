package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/examples/deploy/rollout"
	"github.com/elector-go/elector/leaderservice"
)

const handOvers = 100

// A pod network, on one loopback: the API does not take loopback addresses, so pods have others, which lead there.
type podNetwork struct{ servers sync.Map } // from a pod's address and port to the server's

func (n *podNetwork) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	server, ok := n.servers.Load(addr)
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no route to host")}
	}
	return new(net.Dialer).DialContext(ctx, "tcp", server.(string))
}

// A proxier is to this process what kube-proxy is to a node: it leads connections to the Service to the endpoint that
// its watch has seen last. Without one it refuses them.
type proxier struct {
	network  *podNetwork
	endpoint atomic.Pointer[string] // "" for none
	moved    chan string            // each endpoint that it is given
}

func (p *proxier) follow(events <-chan watch.Event) {
	for ev := range events {
		slice, ok := ev.Object.(*discoveryv1.EndpointSlice)
		if !ok || ev.Type == watch.Deleted {
			continue
		}
		addr := ""
		if len(slice.Endpoints) > 0 {
			addr = net.JoinHostPort(slice.Endpoints[0].Addresses[0], fmt.Sprint(*slice.Ports[0].Port))
		}
		p.endpoint.Store(&addr)
		if addr != "" {
			p.moved <- addr
		}
	}
}

func (p *proxier) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return p.network.dial(ctx, network, *p.endpoint.Load())
}

// replicas are programs as in main.go, in this process, as the ServiceAccount of the manifests.
func startReplicas(t *testing.T, r *rollout.Rollout, network *podNetwork, n int) (electors []*elector.Elector, addresses []string) {
	t.Helper()
	ctx, stop := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	for i := range n {
		address := fmt.Sprintf("10.244.1.%d", i+1)
		transport := &http.Transport{DialContext: network.dial}
		cfg := *r.Config
		cfg.QPS = -1 // this test hands over more often than any program
		el, handler, err := elect(&cfg, leaderservice.Options{
			Namespace: r.Namespace, Service: rollout.App, Address: address, Pod: fmt.Sprintf("pod-%d", i+1),
			Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}},
			Transport: transport,
		}, false, work)
		require.NoError(t, err)
		server := httptest.NewServer(handler)
		t.Cleanup(func() { server.Close(); transport.CloseIdleConnections() })
		network.servers.Store(address+":8080", strings.TrimPrefix(server.URL, "http://"))
		running.Go(func() { require.NoError(t, el.Run(ctx)) })
		electors, addresses = append(electors, el), append(addresses, address+":8080")
	}
	return electors, addresses
}

// An attempt is a request of the load, and when it was.
type attempt struct {
	begin, end time.Time
	err        error
}

// A client asks again and again, each time by a connection of its own, and notes how that went.
type client struct {
	http     *http.Client
	attempts []attempt
	token    uint64 // the last one that it was answered with
	backward bool   // an answer came from a leader before that
}

func (c *client) ask(ctx context.Context) {
	for ctx.Err() == nil {
		a := attempt{begin: time.Now()}
		a.err = c.once()
		a.end = time.Now()
		c.attempts = append(c.attempts, a)
		time.Sleep(time.Duration(2+rand.IntN(4)) * time.Millisecond)
	}
}

func (c *client) once() error {
	resp, err := c.http.Get("http://leaderservice/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return errors.Join(err, fmt.Errorf("%d %s", resp.StatusCode, strings.TrimSpace(string(body))))
	}
	var pod string
	var token uint64
	if _, err := fmt.Sscanf(string(body), "%s leads, with token %d", &pod, &token); err != nil {
		return fmt.Errorf("%q: %w", body, err)
	}
	c.backward = c.backward || token < c.token
	c.token = token
	return nil
}

// A load is clients that ask by the same way.
type load struct {
	name    string
	clients []*client
}

func newLoad(name string, clients int, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *load {
	l := &load{name: name}
	for range clients {
		l.clients = append(l.clients, &client{http: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		}})
	}
	return l
}

// report prints how many requests failed, and for how long, and returns that of all spells.
func (l *load) report(t *testing.T) (asked, failed int, spells []time.Duration) {
	reasons := map[string]int{}
	for _, c := range l.clients {
		require.False(t, c.backward, "a past leader has answered after the next one")
		var since time.Time // of the first failure in a row
		for _, a := range c.attempts {
			asked++
			switch {
			case a.err != nil:
				failed++
				reasons[a.err.Error()]++
				if since.IsZero() {
					since = a.begin
				}
			case !since.IsZero():
				spells = append(spells, a.end.Sub(since))
				since = time.Time{}
			}
		}
		require.True(t, since.IsZero(), "the last request failed")
	}
	slices.Sort(spells)
	at := func(share float64) time.Duration {
		if len(spells) == 0 {
			return 0
		}
		return spells[int(share*float64(len(spells)-1))].Round(100 * time.Microsecond)
	}
	t.Logf("%-22s %6d requests, %4d failed (%.2f %%); a client saw %3d spells of failures, median %v, worst %v",
		l.name, asked, failed, 100*float64(failed)/float64(asked), len(spells), at(0.5), at(1))
	for why, n := range reasons {
		t.Logf("%24d × %s", n, why)
	}
	return asked, failed, spells
}

// Requests come by the Service, and to any replica, while leadership moves a hundred times. How many fail, and for how
// long, is printed; what must hold on any machine is that each spell ends, and that no past leader answers.
func TestAHundredHandOversUnderALoadOfRequests(t *testing.T) {
	r, err := rollout.New(t.Context(), shared.Cluster, "handovers", filepath.Join(shared.Programs, rollout.App), t.TempDir(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	events, err := r.Admin.DiscoveryV1().EndpointSlices(r.Namespace).Watch(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + rollout.App})
	require.NoError(t, err)
	network := &podNetwork{}
	p := &proxier{network: network, moved: make(chan string, handOvers+10)}
	p.endpoint.Store(ptr.To(""))
	var following sync.WaitGroup
	following.Go(func() { p.follow(events.ResultChan()) })
	t.Cleanup(func() { events.Stop(); following.Wait() })

	electors, addresses := startReplicas(t, r, network, 3)
	next := func() string {
		select {
		case addr := <-p.moved:
			return addr
		case <-time.After(30 * time.Second):
			require.Fail(t, "the Service leads nowhere")
			return ""
		}
	}
	leader := next()
	require.Eventually(t, func() bool { // all know who leads
		return !slices.ContainsFunc(electors, func(el *elector.Elector) bool { return el.Leader() == "" })
	}, 30*time.Second, 10*time.Millisecond)

	loads := []*load{
		newLoad("by the Service", 2, p.dial),
		newLoad("to any replica", 2, func(ctx context.Context, net, _ string) (net.Conn, error) {
			return network.dial(ctx, net, addresses[rand.IntN(len(addresses))])
		}),
	}
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for _, l := range loads {
		for _, c := range l.clients {
			asking.Go(func() { c.ask(ctx) })
		}
	}
	for range handOvers {
		time.Sleep(time.Duration(50+rand.IntN(100)) * time.Millisecond)
		require.NoError(t, electors[slices.Index(addresses, leader)].StepDown(t.Context()))
		now := next()
		require.NotEqual(t, leader, now, "it sits out")
		leader = now
	}
	time.Sleep(time.Second)
	stop()
	asking.Wait()
	for _, l := range loads {
		asked, failed, spells := l.report(t)
		require.Greater(t, asked, 10*handOvers)
		require.Less(t, failed, asked/2)
		for _, spell := range spells {
			require.Less(t, spell, 10*time.Second)
		}
	}
}
