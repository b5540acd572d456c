// Package deploy holds the manifests of a program with an elector, for kubectl apply -k, and reads them for tests.
package deploy

import (
	"context"
	"embed"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

//go:embed *.yaml
var files embed.FS

// kustomization is as much of kustomize as kustomization.yaml uses; anything else in it is an error.
type kustomization struct {
	metav1.TypeMeta
	Resources []string
	Images    []struct{ Name, NewName, NewTag string }
}

// Objects returns what kubectl apply -k would apply, in its order.
func Objects() ([]*unstructured.Unstructured, error) {
	text, err := files.ReadFile("kustomization.yaml")
	if err != nil {
		return nil, err
	}
	var k kustomization
	if err := yaml.UnmarshalStrict(text, &k); err != nil {
		return nil, fmt.Errorf("kustomization.yaml: %w", err)
	}
	var objects []*unstructured.Unstructured
	for _, name := range k.Resources {
		some, err := Read(name)
		if err != nil {
			return nil, err
		}
		objects = append(objects, some...)
	}
	for _, o := range objects {
		setImages(o, k)
	}
	return objects, nil
}

// Read returns the objects in a file.
func Read(name string) (objects []*unstructured.Unstructured, err error) {
	text, err := files.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func setImages(o *unstructured.Unstructured, k kustomization) {
	containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
	for _, c := range containers {
		for _, image := range k.Images {
			if c := c.(map[string]any); c["image"] == image.Name {
				c["image"] = image.NewName + ":" + image.NewTag
			}
		}
	}
	if containers != nil {
		_ = unstructured.SetNestedSlice(o.Object, containers, "spec", "template", "spec", "containers")
	}
}

// Apply applies an object as kubectl apply --server-side --validate=strict does: a field that the API server does not
// know is an error. (The Kinds used here have regular plurals.)
func Apply(ctx context.Context, client dynamic.Interface, o *unstructured.Unstructured) error {
	body, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	resource, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	force := true
	_, err = client.Resource(resource).Namespace(o.GetNamespace()).Patch(ctx, o.GetName(), types.ApplyPatchType, body,
		metav1.PatchOptions{FieldManager: "deploy", Force: &force, FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// Move puts an object, and what it refers to, into another namespace.
func Move(o *unstructured.Unstructured, namespace string) {
	if o.GetKind() == "Namespace" {
		o.SetName(namespace)
		return
	}
	o.SetNamespace(namespace)
	subjects, _, _ := unstructured.NestedSlice(o.Object, "subjects")
	for _, s := range subjects {
		s.(map[string]any)["namespace"] = namespace
	}
	if subjects != nil {
		_ = unstructured.SetNestedSlice(o.Object, subjects, "subjects")
	}
}

// Env is the environment that the kubelet would give a pod's first container, as far as it is what the pod knows of itself.
func Env(pod *corev1.Pod) (env []string) {
	for _, v := range pod.Spec.Containers[0].Env {
		value := v.Value
		if from := v.ValueFrom; from != nil && from.FieldRef != nil {
			value = map[string]string{
				"metadata.name": pod.Name, "metadata.namespace": pod.Namespace,
				"status.podIP": pod.Status.PodIP, "spec.nodeName": pod.Spec.NodeName,
			}[from.FieldRef.FieldPath]
		}
		env = append(env, v.Name+"="+value)
	}
	return env
}
