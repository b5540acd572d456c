package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// kubeFlags are kubectl's flags for the cluster and the namespace. In a pod none is needed.
type kubeFlags struct {
	rules     *clientcmd.ClientConfigLoadingRules
	overrides clientcmd.ConfigOverrides
}

func addKubeFlags(cmd *cobra.Command) *kubeFlags {
	k := &kubeFlags{rules: clientcmd.NewDefaultClientConfigLoadingRules()}
	cmd.Flags().StringVar(&k.rules.ExplicitPath, clientcmd.RecommendedConfigPathFlag, "",
		"path of the kubeconfig file (default $KUBECONFIG, ~/.kube/config, or the pod's own account)")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	clientcmd.BindOverrideFlags(&k.overrides, cmd.Flags(), names)
	_ = cmd.RegisterFlagCompletionFunc("namespace", cobra.NoFileCompletions)
	// kubectl's rarer flags work, but a help that fits a screen is read.
	for _, rare := range []string{"as", "as-group", "as-uid", "as-user-extra", "certificate-authority", "client-certificate",
		"client-key", "cluster", "disable-compression", "insecure-skip-tls-verify", "password", "proxy-url",
		"request-timeout", "server", "tls-server-name", "token", "user", "username"} {
		if f := cmd.Flags().Lookup(rare); f != nil {
			f.Hidden = true
		}
	}
	return k
}

// A target is a Lease, and how to reach its API server.
type target struct {
	namespace, name string
	config          *rest.Config
}

func (t target) String() string { return t.namespace + "/" + t.name }

func (t target) leases() (coordinationv1client.LeasesGetter, error) {
	return coordinationv1client.NewForConfig(t.config)
}

// target reads namespace/name, or a name alone: then the namespace is that of the flags, the kubeconfig or the pod.
func (k *kubeFlags) target(lease string) (target, error) {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(k.rules, &k.overrides)
	t := target{name: lease}
	if before, after, ok := strings.Cut(lease, "/"); ok {
		t.namespace, t.name = before, after
		if n := k.overrides.Context.Namespace; n != "" && n != t.namespace {
			return t, fmt.Errorf("the Lease is %s, but --namespace is %s: give the namespace once", lease, n)
		}
	}
	var errs []error
	if reasons := content.IsDNS1123Subdomain(t.name); len(reasons) > 0 {
		errs = append(errs, fmt.Errorf("the Lease's name %q: %s", t.name, strings.Join(reasons, "; ")))
	}
	var err error
	if t.config, err = loader.ClientConfig(); err != nil {
		if clientcmd.IsEmptyConfig(err) {
			err = errors.New("no cluster is configured: set $KUBECONFIG or --kubeconfig, or run in a pod with a service account")
		} else {
			err = fmt.Errorf("%s: %w", k.source(), err)
		}
		return t, errors.Join(append(errs, err)...)
	}
	if t.namespace == "" {
		if t.namespace, _, err = loader.Namespace(); err != nil {
			errs = append(errs, fmt.Errorf("find the namespace: %w; give it with -n", err))
		}
	}
	if reasons := content.IsDNS1123Label(t.namespace); len(reasons) > 0 {
		errs = append(errs, fmt.Errorf("the namespace %q: %s", t.namespace, strings.Join(reasons, "; ")))
	}
	return t, errors.Join(errs...)
}

// source is where the configuration comes from, for an error that does not say it.
func (k *kubeFlags) source() string {
	if k.rules.ExplicitPath != "" {
		return "the kubeconfig of --kubeconfig"
	}
	return "the kubeconfig (--kubeconfig, $KUBECONFIG or ~/.kube/config)"
}

// completeLeases completes the names of Leases for a shell's tab key.
func (k *kubeFlags) completeLeases(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	t, err := k.target("any")
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	leases, err := t.leases()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, err := leases.Leases(t.namespace).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, l := range list.Items {
		names = append(names, l.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// oneLease is the argument of the commands for people.
func oneLease(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &exitError{code: exitFailed, err: fmt.Errorf("%d arguments; give one Lease, as shop/batch, or as batch with -n shop", len(args))}
	}
	return nil
}
