package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/cluster"
)

// The client of this module is the newest. The root module's is the oldest, so its own tests are run on this server. With
// the race detector, because make test has compiled them with it.
func TestTheOldestClientOnThisServer(t *testing.T) {
	t.Parallel()
	f := newFleetWithout(t)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, cluster.WriteKubeconfig(kubeconfig, shared.cluster.AdminConfig()))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-race", "-count=1", "-v", "-run", "^TestServer", "./internal/compat",
		"-kubeconfig", kubeconfig, "-namespace", f.namespace)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
	require.NotContains(t, string(out), "SKIP")
}
