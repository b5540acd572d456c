//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/elector-go/elector/e2e/cluster"
)

// apply applies the manifests as kubectl apply --server-side --validate=strict does, but in the stage's namespace.
func (s *stage) apply() (objects []*unstructured.Unstructured) {
	s.t.Helper()
	client, err := dynamic.NewForConfig(shared.AdminConfig())
	require.NoError(s.t, err)
	files, err := filepath.Glob("deploy/*.yaml")
	require.NoError(s.t, err)
	require.Len(s.t, files, 4)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(s.t, err)
		text = bytes.ReplaceAll(text, []byte("namespace: batch\n"), []byte("namespace: "+s.namespace+"\n"))
		for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
			o := &unstructured.Unstructured{}
			require.NoError(s.t, yaml.Unmarshal(doc, &o.Object), file)
			if o.GetKind() == "Namespace" {
				o.SetName(s.namespace)
			}
			body, err := o.MarshalJSON()
			require.NoError(s.t, err)
			resource, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
			force := true
			_, err = client.Resource(resource).Namespace(o.GetNamespace()).Patch(s.t.Context(), o.GetName(), types.ApplyPatchType, body,
				metav1.PatchOptions{FieldManager: "test", FieldValidation: metav1.FieldValidationStrict, Force: &force})
			require.NoError(s.t, err, "%s: %s %s", file, o.GetKind(), o.GetName())
			objects = append(objects, o)
		}
	}
	return objects
}

// logIn has the kubeconfig be that of the manifests' ServiceAccount, with the pod's namespace.
func (s *stage) logIn() {
	s.t.Helper()
	request, err := shared.Admin().CoreV1().ServiceAccounts(s.namespace).CreateToken(s.t.Context(), "batch", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(s.t, err)
	cfg := shared.AdminConfig()
	cfg.BearerToken = request.Status.Token
	require.NoError(s.t, cluster.WriteKubeconfig(s.kubeconfig, cfg))
	kc, err := clientcmd.LoadFromFile(s.kubeconfig)
	require.NoError(s.t, err)
	kc.Contexts[kc.CurrentContext].Namespace = s.namespace
	require.NoError(s.t, clientcmd.WriteToFile(*kc, s.kubeconfig))
}

// The containers run as processes here: there are no nodes. Their rights are those of the manifests' Role, and no others.
func TestTheManifests(t *testing.T) {
	s := newStage(t)
	objects := s.apply()
	s.logIn()
	s.within("the authorizer, which follows behind", func() bool {
		code, _, _ := s.ask("status", "batch-shell")
		return code == exitNobody
	})
	scripts := t.TempDir()
	var templates []corev1.PodTemplateSpec
	for _, o := range objects {
		switch o.GetKind() {
		case "ConfigMap":
			var c corev1.ConfigMap
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &c))
			for name, text := range c.Data {
				require.NoError(t, os.WriteFile(filepath.Join(scripts, name), []byte(text), 0o600))
			}
		case "Deployment":
			var d appsv1.Deployment
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d))
			templates = append(templates, d.Spec.Template)
		}
	}
	require.Len(t, templates, 2)
	for _, template := range templates {
		container := template.Spec.Containers[0]
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod"}, Spec: template.Spec}
		_, err := shared.Admin().CoreV1().Pods(s.namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.NoError(t, err, "the namespace admits restricted pods only")
		if _, err := exec.LookPath(container.Command[5]); err != nil {
			t.Logf("not run: %v", err)
			continue
		}
		var args []string
		for _, arg := range container.Command[1:] {
			arg = strings.Replace(arg, "/scripts", scripts, 1)
			args = append(args, strings.Replace(arg, "=:8081", "=127.0.0.1:0", 1))
		}
		leader := s.start(s.command(args...))
		leader.says("I lead, token ")
		standby := s.start(s.command(args...))
		standby.says("New leader")
		for _, r := range []*replica{leader, standby} {
			r.get(container.LivenessProbe.HTTPGet.Path)
			r.get(container.ReadinessProbe.HTTPGet.Path)
		}
		leader.signal(syscall.SIGTERM)
		standby.says("I lead, token ")
		standby.signal(syscall.SIGTERM)
		for _, r := range []*replica{leader, standby} {
			require.Zero(t, r.exitCode())
			require.NotContains(t, r.String(), "forbidden")
		}
	}
}
