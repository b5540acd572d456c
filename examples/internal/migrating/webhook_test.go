package migrating

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/elector-go/elector/examples/internal/fleet"
)

func TestWebhooksAreServedOnEveryReplica(t *testing.T) {
	certs := certificate(t)
	for _, program := range []string{"before", "elect", "warm"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			f := newOperators(t, "ENABLE_WEBHOOKS=true")
			for _, says := range []string{"Starting workers", ""} { // a leader, and then a standby
				addr, err := fleet.Addr()
				require.NoError(t, err)
				_, port, err := net.SplitHostPort(addr)
				require.NoError(t, err)
				r := f.start(program, "-leader-elect", "-webhook-cert-path="+certs, "-webhook-port="+port)
				if says != "" {
					f.await(r, says)
				}
				require.False(t, f.admits(addr, `{"data":{}}`))
				require.True(t, f.admits(addr, `{"data":{"number":"7"}}`))
			}
		})
	}
}

// admits asks the webhook whether an order is valid. The server may just have been started.
func (f *operators) admits(addr, order string) bool {
	f.t.Helper()
	review, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"},
			Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: []byte(order)},
		},
	})
	require.NoError(f.t, err)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it signs its own
	defer client.CloseIdleConnections()
	for {
		resp, err := client.Post("https://"+addr+"/validate--v1-configmap", "application/json", bytes.NewReader(review))
		if err == nil {
			var answer admissionv1.AdmissionReview
			require.NoError(f.t, json.NewDecoder(resp.Body).Decode(&answer))
			require.NoError(f.t, resp.Body.Close())
			return answer.Response.Allowed
		}
		require.NoError(f.t, f.Context().Err(), err)
		time.Sleep(10 * time.Millisecond)
	}
}

// certificate writes a key and a certificate for loopback, and returns the folder.
func certificate(t *testing.T) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: cert}, "tls.key": {Type: "PRIVATE KEY", Bytes: private}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	return dir
}
