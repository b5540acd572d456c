// Package checksum is the work of the operators in the examples: it writes the checksum of each labelled ConfigMap
// into an annotation of the ConfigMap, where others can see whether the data is what it was. It knows nothing of
// elections, and stands for the reconcilers of yours.
package checksum

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// Label marks, with the value "true", the ConfigMaps that get a checksum.
	Label = "example.com/checksum"

	// Annotation is where the checksum is written.
	Annotation = "example.com/sha256"
)

// Reconciler writes checksums.
type Reconciler struct {
	Client client.Client
}

// SetupWithManager adds the controller to a manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("checksum").For(&corev1.ConfigMap{}).Complete(r)
}

// Reconcile sees to it that a ConfigMap has its checksum.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var cm corev1.ConfigMap
	if err := r.Client.Get(ctx, req.NamespacedName, &cm); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	sum, err := Sum(&cm)
	if err != nil || cm.Annotations[Annotation] == sum {
		return ctrl.Result{}, err
	}
	before := cm.DeepCopy()
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, Annotation, sum)
	// With the version that was read: data that has changed since gets no checksum of the old.
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, &cm, patch); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	ctrl.LoggerFrom(ctx).Info("Wrote a checksum", "sha256", sum[:12])
	return ctrl.Result{}, nil
}

// Sum is the checksum of a ConfigMap's data.
func Sum(cm *corev1.ConfigMap) (string, error) {
	data, err := json.Marshal([]any{cm.Data, cm.BinaryData}) // sorts the keys
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// CacheOptions keeps to the labelled ConfigMaps of one namespace, so that a Role in it is all the permission needed.
func CacheOptions(namespace string) cache.Options {
	return cache.Options{
		DefaultNamespaces: map[string]cache.Config{namespace: {}},
		ByObject: map[client.Object]cache.ByObject{
			&corev1.ConfigMap{}: {Label: labels.SelectorFromSet(labels.Set{Label: "true"})},
		},
	}
}

// Mark labels a ConfigMap, so that it gets a checksum.
func Mark(cm *corev1.ConfigMap) {
	metav1.SetMetaDataLabel(&cm.ObjectMeta, Label, "true")
}
