// Package v1 stands for internal/webhook/v1 of your project.
package v1

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// SetupOrderWebhookWithManager registers the webhook of orders, which are ConfigMaps here.
func SetupOrderWebhookWithManager(mgr ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &corev1.ConfigMap{}).WithValidator(&OrderValidator{}).Complete()
}

// OrderValidator refuses orders without a number.
type OrderValidator struct{}

// ValidateCreate validates a new order.
func (*OrderValidator) ValidateCreate(_ context.Context, order *corev1.ConfigMap) (admission.Warnings, error) {
	if order.Data["number"] == "" {
		return nil, errors.New("an order needs a number")
	}
	return nil, nil
}

// ValidateUpdate validates a change.
func (v *OrderValidator) ValidateUpdate(ctx context.Context, _, order *corev1.ConfigMap) (admission.Warnings, error) {
	return v.ValidateCreate(ctx, order)
}

// ValidateDelete lets orders be deleted.
func (*OrderValidator) ValidateDelete(context.Context, *corev1.ConfigMap) (admission.Warnings, error) {
	return nil, nil
}
