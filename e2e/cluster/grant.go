package cluster

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CreateNamespace makes a namespace; one that exists already is left as it is.
func (c *Cluster) CreateNamespace(ctx context.Context, name string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := c.admin.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("cluster: create namespace %s: %w", name, err)
	}
	return nil
}

// LeaseRule allows the verbs on Leases: on those named, or on all of the namespace when none is. The verb create cannot
// be limited to names, for the API server does not know the name when it decides.
func LeaseRule(names []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		APIGroups:     []string{coordinationv1.GroupName},
		Resources:     []string{"leases"},
		ResourceNames: names,
		Verbs:         verbs,
	}
}

// GrantLeases allows user the verbs on all the Leases of namespace, as Grant does.
func (c *Cluster) GrantLeases(ctx context.Context, user, namespace string, verbs ...string) error {
	return c.Grant(ctx, user, namespace, LeaseRule(nil, verbs...))
}

// Grant allows user what the rules, made by LeaseRule, say for namespace, by a Role and its RoleBinding, and returns
// when the API server acts by them. A user gets one grant in a namespace; each user named to Start starts with none.
func (c *Cluster) Grant(ctx context.Context, user, namespace string, rules ...rbacv1.PolicyRule) error {
	meta := metav1.ObjectMeta{Name: "leases-of-" + user}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: rules}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta,
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
	}
	if _, err := c.admin.RbacV1().Roles(namespace).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("cluster: grant leases to %s: %w", user, err)
	}
	if _, err := c.admin.RbacV1().RoleBindings(namespace).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("cluster: grant leases to %s: %w", user, err)
	}
	// The authorizer reads its rules from a cache that follows behind.
	return c.poll(ctx, func() error { return c.mayAll(ctx, user, namespace, rules) })
}

func (c *Cluster) mayAll(ctx context.Context, user, namespace string, rules []rbacv1.PolicyRule) error {
	for _, rule := range rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			for _, verb := range rule.Verbs {
				if err := c.may(ctx, user, namespace, verb, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *Cluster) may(ctx context.Context, user, namespace, verb, name string) error {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: coordinationv1.GroupName, Resource: "leases", Namespace: namespace, Verb: verb, Name: name,
		},
	}}
	answer, err := c.admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("review access of %s: %w", user, err)
	}
	if !answer.Status.Allowed {
		return fmt.Errorf("%s may not yet %s leases %s in %s", user, verb, name, namespace)
	}
	return nil
}
