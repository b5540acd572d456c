// Package controller stands for the one of your project.
package controller

import (
	"context"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"

	"github.com/elector-go/elector/examples/internal/checksum"
)

// OrderReconciler is one as kubebuilder scaffolds it. Its orders are ConfigMaps, and its work is a checksum.
type OrderReconciler struct {
	client.Client
	Scheme *runtime.Scheme
}

// SetupWithManager makes an index too, as kubebuilder's book does, which a cache bears but once.
func (r *OrderReconciler) SetupWithManager(mgr ctrl.Manager) error {
	number := func(obj client.Object) []string { return []string{obj.(*corev1.ConfigMap).Data["number"]} }
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &corev1.ConfigMap{}, "data.number", number); err != nil {
		return err
	}
	return (&checksum.Reconciler{Client: r.Client}).SetupWithManager(mgr)
}

// CacheOptions keeps to one namespace, as the Roles of the tests do.
func CacheOptions() cache.Options { return checksum.CacheOptions(os.Getenv("POD_NAMESPACE")) }

// Options has the caches of standbys filled if $WARMUP is set.
func Options() config.Controller {
	return config.Controller{EnableWarmup: new(os.Getenv("WARMUP") != "")}
}

// Release has controller-runtime's own election release the Lease if $RELEASE is set.
func Release() bool { return os.Getenv("RELEASE") != "" }
