package fleet

import (
	"context"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// grant lets User do what a Role says, and returns when the API server acts by it.
func grant(ctx context.Context, admin kubernetes.Interface, namespace, role string) error {
	var r rbacv1.Role
	if err := yaml.UnmarshalStrict([]byte(role), &r); err != nil {
		return fmt.Errorf("fleet: parse a Role: %w", err)
	}
	r.Namespace = namespace
	if _, err := admin.RbacV1().Roles(namespace).Create(ctx, &r, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	_, err := admin.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: r.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: User}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: r.Name},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	// The authorizer reads its rules from a cache that follows behind.
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return mayAll(ctx, admin, namespace, r.Rules)
	})
}

func mayAll(ctx context.Context, admin kubernetes.Interface, namespace string, rules []rbacv1.PolicyRule) (bool, error) {
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			attributes := &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: rule.APIGroups[0], Resource: rule.Resources[0]}
			if len(rule.ResourceNames) > 0 {
				attributes.Name = rule.ResourceNames[0]
			}
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: User, ResourceAttributes: attributes}}
			answer, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			if err != nil || !answer.Status.Allowed {
				return false, err
			}
		}
	}
	return true, nil
}
