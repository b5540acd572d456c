// Package cluster runs a real kube-apiserver with its etcd on loopback, for tests.
//
//	c, err := cluster.Start(ctx, "shop-operator")
//	...
//	defer c.Stop()
//	err = c.GrantLeases(ctx, "shop-operator", "shop", "get", "create", "update")
//	cfg := c.UserConfig("shop-operator")
//
// The servers are the two binaries in the folder that KUBEBUILDER_ASSETS names, or are built from their Go modules by
// the go command. Nothing but the API is there: no controllers, no scheduler, no nodes.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// adminUser is in system:masters and so may do everything.
const adminUser = "admin"

// A Cluster is a running API server with its storage. Start makes one; its methods may be called concurrently.
type Cluster struct {
	// Etcd and APIServer are the two processes, for tests that suspend, kill and restart them.
	Etcd, APIServer *Server

	dir   string
	host  string
	ca    []byte
	users []string
	admin kubernetes.Interface
}

// Start starts etcd and kube-apiserver with fresh storage on free loopback ports and returns when the API is ready.
// The users are the names that UserConfig knows; they may do nothing until something is granted to them. A done ctx
// ends the start, not the started cluster: that ends with Stop, and on Linux also with this process.
func Start(ctx context.Context, users ...string) (*Cluster, error) {
	bin, err := findBinaries(ctx)
	if err != nil {
		return nil, err
	}
	// A port that was free can be taken before the server listens on it; that is worth another try, nothing else is.
	for tries := 3; ; tries-- {
		c, err := start(ctx, bin, users)
		if err == nil {
			return c, nil
		}
		if tries == 1 || !strings.Contains(err.Error(), "address already in use") {
			return nil, err
		}
	}
}

func start(ctx context.Context, bin binaries, users []string) (_ *Cluster, err error) {
	dir, err := os.MkdirTemp("", "elector-cluster-")
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c := &Cluster{dir: dir, users: append([]string{adminUser}, users...)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	etcdPort, apiPort, err := freePorts()
	if err != nil {
		return nil, err
	}
	if err := c.writeFiles(); err != nil {
		return nil, err
	}
	c.host = fmt.Sprintf("https://127.0.0.1:%d", apiPort)
	c.Etcd = newServer("etcd", bin.etcd, dir, etcdArgs(dir, etcdPort))
	c.APIServer = newServer("kube-apiserver", bin.apiServer, dir, apiServerArgs(dir, etcdPort, apiPort))
	for _, s := range []*Server{c.Etcd, c.APIServer} {
		if err := s.Start(); err != nil {
			return nil, err
		}
	}
	return c, c.connect(ctx)
}

// connect waits until the API server has made its certificate and says that it is ready.
func (c *Cluster) connect(ctx context.Context) error {
	// The certificate is whole on disk before the port is open, not before.
	err := c.poll(ctx, func() error {
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.host, "https://"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return err
	}
	if c.ca, err = os.ReadFile(filepath.Join(certDir(c.dir), "apiserver.crt")); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	cfg := c.AdminConfig()
	cfg.QPS = -1 // tests that run side by side must not wait for each other
	if c.admin, err = kubernetes.NewForConfig(cfg); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return c.WaitReady(ctx)
}

// WaitReady returns when /readyz answers ok, for instance after a restart of the API server.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return c.poll(ctx, func() error {
		return c.admin.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// poll calls try until it succeeds, a minute is over, ctx is done or a server has died; then its error shows the
// ends of the logs.
func (c *Cluster) poll(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		for _, s := range []*Server{c.Etcd, c.APIServer} {
			if !s.Running() {
				return fmt.Errorf("cluster: %s has ended: %w", s.name, s.withLog(err))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster: not ready: %w", errors.Join(context.Cause(ctx), c.Etcd.withLog(err), c.APIServer.withLog(nil)))
		case <-tick.C:
		}
	}
}

// Stop ends both servers and removes their files.
func (c *Cluster) Stop() error {
	// The API server first: it would spend its last seconds in search of its storage.
	for _, s := range []*Server{c.APIServer, c.Etcd} {
		if s != nil {
			s.Stop()
		}
	}
	return os.RemoveAll(c.dir)
}

// Admin returns a client that may do everything.
func (c *Cluster) Admin() kubernetes.Interface { return c.admin }

// AdminConfig returns a configuration that may do everything.
func (c *Cluster) AdminConfig() *rest.Config { return c.UserConfig(adminUser) }

// UserConfig returns the configuration of a user named to Start. An unknown name is a bug of the test, and panics.
func (c *Cluster) UserConfig(name string) *rest.Config {
	if !slices.Contains(c.users, name) {
		panic(fmt.Sprintf("cluster: unknown user %q: name it when you call Start", name))
	}
	return &rest.Config{
		Host:            c.host,
		BearerToken:     token(name),
		TLSClientConfig: rest.TLSClientConfig{CAData: slices.Clone(c.ca)},
	}
}

// WriteKubeconfig writes cfg, its host, token and CA, as a kubeconfig file for another process.
func WriteKubeconfig(path string, cfg *rest.Config) error {
	const name = "elector-e2e"
	kc := clientcmdapi.NewConfig()
	kc.Clusters[name] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	kc.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: cfg.BearerToken}
	kc.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	kc.CurrentContext = name
	if err := clientcmd.WriteToFile(*kc, path); err != nil {
		return fmt.Errorf("cluster: write kubeconfig %s: %w", path, err)
	}
	return nil
}
