// Package rollout applies the manifests to an API server that has no controllers and no nodes, and is both: it makes the
// Deployment's pods, and runs their container as a process.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector/e2e/cluster"
	"github.com/elector-go/elector/examples/deploy"
	"github.com/elector-go/elector/examples/internal/fleet"
)

// App is the name of the program and of all its objects.
const App = "leaderservice"

// A Rollout is the Deployment in a namespace, and its replicas.
type Rollout struct {
	*fleet.Fleet
	Config *rest.Config // of the ServiceAccount, by a token as pods get it

	kubeconfig, program, dir string
}

// New applies the manifests in a namespace of their own, each after edit, if that is not nil, has changed it; dir is
// for files.
func New(ctx context.Context, c *cluster.Cluster, namespace, program, dir string, edit func(*unstructured.Unstructured)) (*Rollout, error) {
	client, err := dynamic.NewForConfig(c.AdminConfig())
	if err != nil {
		return nil, err
	}
	objects, err := deploy.Objects()
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		deploy.Move(o, namespace)
		if edit != nil {
			edit(o)
		}
		if err := deploy.Apply(ctx, client, o); err != nil {
			return nil, err
		}
	}
	f, err := fleet.New(ctx, c, namespace)
	if err != nil {
		return nil, err
	}
	r := &Rollout{Fleet: f, program: program, dir: dir, kubeconfig: filepath.Join(dir, namespace+".kubeconfig")}
	return r, errors.Join(r.logIn(ctx, c), r.settle(ctx))
}

// logIn gets a token of the ServiceAccount.
func (r *Rollout) logIn(ctx context.Context, c *cluster.Cluster) error {
	request, err := r.Admin.CoreV1().ServiceAccounts(r.Namespace).CreateToken(ctx, App, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	r.Config = c.AdminConfig()
	r.Config.BearerToken = request.Status.Token
	return cluster.WriteKubeconfig(r.kubeconfig, r.Config)
}

// settle returns when the API server's authorizer, which reads from a cache, acts by the last rule applied.
func (r *Rollout) settle(ctx context.Context) error {
	roles, err := r.Admin.RbacV1().Roles(r.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, role := range roles.Items {
		for _, rule := range role.Rules {
			for _, verb := range rule.Verbs {
				name := append(rule.ResourceNames, "")[0]
				err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
					return r.May(ctx, verb, rule.APIGroups[0], rule.Resources[0], r.Namespace, name)
				})
				if err != nil {
					return fmt.Errorf("%s %s %s is not allowed: %w", verb, rule.Resources[0], name, err)
				}
			}
		}
	}
	return nil
}

// May asks whether the ServiceAccount may do something.
func (r *Rollout) May(ctx context.Context, verb, group, resource, namespace, name string) (bool, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + r.Namespace + ":" + App,
		Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + r.Namespace, "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Namespace: namespace, Name: name},
	}}
	answer, err := r.Admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed, nil
}

// Pod returns a pod of the Deployment, not yet created.
func (r *Rollout) Pod(ctx context.Context, name string) (*corev1.Pod, error) {
	d, err := r.Admin.AppsV1().Deployments(r.Namespace).Get(ctx, App, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{ObjectMeta: d.Spec.Template.ObjectMeta, Spec: d.Spec.Template.Spec}
	pod.Name, pod.Namespace = name, r.Namespace
	// The processes share one loopback, and an EndpointSlice must not have an address of that. A connection to a multicast
	// address fails at once, and nothing leaves the machine.
	pod.Status.PodIP = fmt.Sprintf("239.255.0.%d", 1+crc32.ChecksumIEEE([]byte(name))%250)
	return pod, nil
}

// Launch makes a pod of the Deployment, if it is not there, and starts its container as a process. It serves on addr.
func (r *Rollout) Launch(ctx context.Context, name string) (replica *fleet.Replica, addr string, err error) {
	pod, err := r.Pod(ctx, name)
	if err != nil {
		return nil, "", err
	}
	if _, err := r.Admin.CoreV1().Pods(r.Namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, "", err
	}
	if addr, err = fleet.Addr(); err != nil {
		return nil, "", err
	}
	volume := filepath.Join(r.dir, name) // the pod's emptyDir
	if err := os.MkdirAll(volume, 0o700); err != nil {
		return nil, "", err
	}
	args := append(deploy.Env(pod), "STATE_DIR="+volume, "KUBECONFIG="+r.kubeconfig, r.program)
	args = append(args, pod.Spec.Containers[0].Args...)
	args = append(args, "-bind-address="+addr) // the last one counts, and all share one loopback
	replica, err = r.Start(name, "env", args...)
	return replica, addr, err
}

// Selected returns the pods that the Service leads to.
func (r *Rollout) Selected(ctx context.Context) (names []string, err error) {
	slices, err := r.Admin.DiscoveryV1().EndpointSlices(r.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + App})
	if err != nil {
		return nil, err
	}
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			names = append(names, endpoint.TargetRef.Name)
		}
	}
	return names, nil
}
