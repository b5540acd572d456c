package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

func certDir(dir string) string    { return filepath.Join(dir, "certs") }
func tokenFile(dir string) string  { return filepath.Join(dir, "tokens.csv") }
func accountKey(dir string) string { return filepath.Join(dir, "service-account.key") }

// token is the bearer token of a user. It opens nothing but a cluster that lives for one test, on loopback.
func token(user string) string { return "token-of-" + user }

func etcdArgs(dir string, port int) []string {
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	return []string{
		"--data-dir=" + filepath.Join(dir, "etcd"),
		"--listen-client-urls=" + url,
		"--advertise-client-urls=" + url,
		"--listen-peer-urls=http://127.0.0.1:0", // no peer will ever come
		"--unsafe-no-fsync",                     // the storage does not outlive the test
		"--log-level=warn",
	}
}

func apiServerArgs(dir string, etcdPort, port int) []string {
	return []string{
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", etcdPort),
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--cert-dir=" + certDir(dir),
		"--service-cluster-ip-range=10.0.0.0/24",
		"--endpoint-reconciler-type=none",
		"--token-auth-file=" + tokenFile(dir),
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + accountKey(dir),
		"--service-account-signing-key-file=" + accountKey(dir),
		"--disable-admission-plugins=ServiceAccount", // without controllers no namespace has an account
	}
}

// writeFiles writes the users and the key that the API server insists on.
func (c *Cluster) writeFiles() error {
	var tokens strings.Builder
	for _, user := range c.users {
		group := "e2e"
		if user == adminUser {
			group = "system:masters"
		}
		fmt.Fprintf(&tokens, "%s,%s,%s,%s\n", token(user), user, user, group)
	}
	key, err := newKey()
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	err = errors.Join(
		os.WriteFile(tokenFile(c.dir), []byte(tokens.String()), 0o600),
		os.WriteFile(accountKey(c.dir), key, 0o600),
	)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

func newKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// freePorts returns two ports of loopback that were free a moment ago.
func freePorts() (int, int, error) {
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, 0, fmt.Errorf("cluster: find a free port: %w", err)
		}
		defer l.Close() // not before both are known, so that they differ
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1], nil
}
