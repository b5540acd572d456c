package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-go/elector/e2e/cluster"
)

func TestAClusterServesLeasesToWhomTheyAreGrantedAndSurvivesACrash(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, "somebody", "nobody")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Stop()) })

	require.NoError(t, c.CreateNamespace(ctx, "shop"))
	require.NoError(t, c.GrantLeases(ctx, "somebody", "shop", "get", "create"))
	lease := newLease("test")
	_, err = clientOf(t, c, "nobody").CoordinationV1().Leases("shop").Create(ctx, lease, metav1.CreateOptions{})
	require.True(t, apierrors.IsForbidden(err), "%v", err)
	somebody := clientOf(t, c, "somebody").CoordinationV1().Leases("shop")
	_, err = somebody.Create(ctx, lease, metav1.CreateOptions{})
	require.NoError(t, err)

	require.NoError(t, c.APIServer.Signal(os.Kill))
	require.Eventually(t, func() bool { return !c.APIServer.Running() }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, c.APIServer.Start())
	require.NoError(t, c.WaitReady(ctx))
	_, err = somebody.Get(ctx, "test", metav1.GetOptions{})
	require.NoError(t, err)
}

func TestAMissingBinaryIsExplained(t *testing.T) {
	t.Setenv("KUBEBUILDER_ASSETS", t.TempDir())
	_, err := cluster.Start(t.Context())
	require.ErrorContains(t, err, "put etcd and kube-apiserver there, or unset it")
}

func TestAnUnknownUserIsABugOfTheTest(t *testing.T) {
	require.Panics(t, func() { (&cluster.Cluster{}).UserConfig("typo") })
}

// clientOf goes by way of a kubeconfig file, as another process would.
func clientOf(t *testing.T, c *cluster.Cluster, user string) kubernetes.Interface {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, cluster.WriteKubeconfig(path, c.UserConfig(user)))
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(t, err)
	return client
}

func newLease(name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
