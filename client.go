package elector

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// NewForConfig is New with NewClient(cfg): a client of the candidate's own.
func NewForConfig(cfg *rest.Config, opts Options) (*Elector, error) {
	client, err := NewClient(cfg)
	if err != nil {
		_, also := opts.complete()
		return nil, errors.Join(err, prefixed(also))
	}
	return New(client, opts)
}

// A Client is a client for the Electors of one process to share, two of them or many hundreds. Make it with NewClient;
// the zero value is not usable. Its methods may be called from any goroutine.
//
// It has no client-side rate limit, so that renewals never wait behind the work of Run, and "leader-election" in its
// user agent. As many of its requests are under way at a time as the server answers quickly, from eight to ninety; the others
// wait in the process, where a renewal goes before the others in the last third of its RenewDeadline.
//
// Its connections are its own: one carries the requests and watches of up to 45 Electors, and eight those of 600. A spare
// one is opened only when a request is overdue, so that a dead connection does not cost a term. They are closed when the
// last Run of the Electors that share the Client has ended.
type Client struct {
	leases coordinationv1client.LeasesGetter
	wrap   func(coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface // nil for none
	links  *links                                                                        // nil where the config has a Transport
}

// NewClient returns a Client. cfg itself is not changed.
//
// Warnings of the API go to the WarningHandler of cfg, or to klog; the requests do not wait for it.
//
// Where cfg has a Transport, the connections of that Transport are used as they are. Requests are sent in protobuf, unless
// cfg has a ContentType. A bearer token file is read anew at least each minute, and when the API has refused the token.
func NewClient(cfg *rest.Config) (*Client, error) {
	if cfg == nil {
		return nil, errors.New("elector: cfg: required: a *rest.Config, as from rest.InClusterConfig")
	}
	c, err := newClient(rest.CopyConfig(cfg))
	if err != nil {
		return nil, fmt.Errorf("elector: cfg: %w", err)
	}
	return c, nil
}

func newClient(cfg *rest.Config) (*Client, error) {
	cfg.UserAgent = cmp.Or(cfg.UserAgent, rest.DefaultKubernetesUserAgent()) + "/leader-election"
	cfg.RateLimiter, cfg.QPS = nil, -1
	cfg.WarningHandler = &warningsBeside{WarningHandler: cmp.Or[rest.WarningHandler](cfg.WarningHandler, rest.WarningLogger{})}
	cfg.Timeout = 0 // it would end the watch too; each attempt has a limit of its own
	if cfg.ContentType == "" {
		cfg.ContentType = runtime.ContentTypeProtobuf
		cfg.AcceptContentTypes = cmp.Or(cfg.AcceptContentTypes, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON)
	}
	if cfg.Transport != nil {
		leases, err := coordinationv1client.NewForConfig(cfg)
		return &Client{leases: leases}, err
	}
	tc, err := cfg.TransportConfig()
	if err != nil {
		return nil, err
	}
	ls, err := newLinks(tc)
	if err != nil {
		return nil, err
	}
	readAnewWhenRefused(tc)
	rt, err := transport.HTTPWrappersForConfig(tc, &hinting{ls})
	if err != nil {
		return nil, err
	}
	leases, err := coordinationv1client.NewForConfigAndClient(cfg, &http.Client{Transport: rt})
	return &Client{leases: leases, links: ls}, err
}

// warningsBeside hands the API's warnings on in order. Client-go does that before it returns an answer, and the log may
// block (L13).
type warningsBeside struct {
	rest.WarningHandler
	calls callQueue
}

// HandleWarningHeader does not wait.
func (w *warningsBeside) HandleWarningHeader(code int, agent, text string) {
	w.calls.add(func() { w.WarningHandler.HandleWarningHeader(code, agent, text) })
}

// readAnewWhenRefused has the file of a bearer token read again after a 401. By itself client-go does so once a minute. A
// file that cannot be read is left to client-go.
func readAnewWhenRefused(tc *transport.Config) {
	if tc.BearerTokenFile == "" {
		return
	}
	source := transport.NewCachedFileTokenSource(tc.BearerTokenFile)
	if _, err := source.Token(); err != nil {
		return
	}
	tc.Wrap(transport.ResettableTokenSourceWrapTransport(source))
	tc.BearerToken, tc.BearerTokenFile = "", ""
}

// Leases returns the client of a namespace.
func (c *Client) Leases(namespace string) coordinationv1client.LeaseInterface {
	leases := c.leases.Leases(namespace)
	if c.wrap != nil {
		leases = c.wrap(leases)
	}
	return leases
}

// Wrap returns a Client that shares the connections of c, and whose requests go through what f puts around the client of
// each namespace. f must hand the ctx of each request on.
func (c *Client) Wrap(f func(coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface) *Client {
	outer := *c
	outer.wrap = f
	if inner := c.wrap; inner != nil {
		outer.wrap = func(leases coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface {
			return f(inner(leases))
		}
	}
	return &outer
}

// use keeps the connections open until unuse, for a Run with that RenewDeadline.
func (c *Client) use(renewDeadline time.Duration) {
	if c != nil && c.links != nil {
		c.links.turns.serve(renewDeadline)
		c.links.use()
	}
}

// unuse closes the connections after the last user.
func (c *Client) unuse() {
	if c != nil && c.links != nil {
		c.links.unuse()
	}
}

// tellsWhenSent reports whether a request of the client tells its attempt when it leaves the process: whether there is
// net/http underneath, as far as can be seen.
func tellsWhenSent(leases coordinationv1client.LeasesGetter) bool {
	if c, ok := leases.(*Client); ok {
		leases = c.leases
	}
	over, ok := leases.(interface{ RESTClient() rest.Interface })
	if !ok {
		return false
	}
	c, ok := over.RESTClient().(*rest.RESTClient)
	if !ok || c == nil {
		return false
	}
	if c.Client == nil || c.Client.Transport == nil {
		return true // http.DefaultTransport
	}
	for rt := c.Client.Transport; ; {
		switch t := rt.(type) {
		case *http.Transport, *links:
			return true
		case utilnet.RoundTripperWrapper:
			rt = t.WrappedRoundTripper()
		default:
			return false
		}
	}
}
