package main

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/elector-go/elector/examples/internal/checksum"
	"github.com/elector-go/elector/operator/operatortest"
)

func twoTerms(t *testing.T, setup func(ctrl.Manager) error) {
	f := shared.New(t, "README.md")
	configMaps := shared.Cluster.Admin().CoreV1().ConfigMaps(f.Namespace)
	operatortest.TwoTerms(t, shared.Cluster.AdminConfig(), ctrl.Options{Cache: checksum.CacheOptions(f.Namespace)}, setup, func(ctx context.Context, term int) error {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "work-"}}
		checksum.Mark(cm)
		cm, err := configMaps.Create(ctx, cm, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		return wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
			cm, err := configMaps.Get(ctx, cm.Name, metav1.GetOptions{})
			return err == nil && cm.Annotations[checksum.Annotation] != "", err
		})
	})
}

func TestTheControllersWorkInTwoTerms(t *testing.T) { twoTerms(t, setupControllers) }

// A test that cannot fail is none: in a process of its own, a setup that leaves goroutines behind.
func TestTwoTermsFindsWhatIsLeftBehind(t *testing.T) {
	if os.Getenv("LEAVES_BEHIND") != "" {
		twoTerms(t, func(mgr ctrl.Manager) error {
			for range 5 {
				go func() { select {} }()
			}
			return setupControllers(mgr)
		})
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTwoTermsFindsWhatIsLeftBehind$")
	cmd.Env = append(os.Environ(), "LEAVES_BEHIND=yes")
	out, err := cmd.CombinedOutput()
	require.Error(t, err, "%s", out)
	require.Contains(t, string(out), "goroutines after the first term")
}
