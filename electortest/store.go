package electortest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
)

// This file is what the server does with its Leases. Objects that come in belong to the server from then on; objects
// that go out are copies.

func (s *Server) get(key types.NamespacedName, notOlderThan string) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version, err := readVersion(notOlderThan)
	switch {
	case err != nil:
		return nil, unexplained(err.Error())
	case version > s.version:
		return nil, tooLarge(version, s.version)
	}
	lease := s.leases[key]
	if lease == nil {
		return nil, notFound(key.Name)
	}
	return lease.DeepCopy(), nil
}

func (s *Server) list(sel selection, notOlderThan string) (*coordinationv1.LeaseList, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version, err := readVersion(notOlderThan)
	switch {
	case err != nil:
		return nil, apierrors.NewBadRequest("invalid resource version: " + err.Error())
	case version > s.version:
		return nil, tooLarge(version, s.version)
	}
	list := &coordinationv1.LeaseList{Items: []coordinationv1.Lease{}}
	list.ResourceVersion = formatVersion(s.version)
	for _, lease := range s.selected(sel) {
		list.Items = append(list.Items, *lease.DeepCopy())
	}
	return list, nil
}

// post creates the Lease it is sent.
func (s *Server) post(namespace string, lease *coordinationv1.Lease, dryRun bool) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := types.NamespacedName{Namespace: namespace, Name: lease.Name}
	if lease.Name == "" {
		return nil, invalid("", field.Required(field.NewPath("metadata", "name"), "name or generateName is required"))
	}
	if version, err := parseVersion(lease); err == nil && version != 0 && !dryRun { // what is no number is ignored
		return nil, unexplained("resourceVersion should not be set on objects to be created")
	}
	return s.create(key, lease, dryRun)
}

// create stores a new Lease, for POST and for a PUT to a name that does not exist.
func (s *Server) create(key types.NamespacedName, lease *coordinationv1.Lease, dryRun bool) (*coordinationv1.Lease, error) {
	if err := matchNamespace(lease, key.Namespace); err != nil {
		return nil, err
	}
	lease.UID = s.nextUID()
	lease.ResourceVersion = ""
	lease.CreationTimestamp = metav1.NewTime(time.Unix(time.Now().Unix(), 0))
	lease.DeletionTimestamp = nil
	lease.DeletionGracePeriodSeconds = nil
	if !s.coordinated {
		lease.Spec.Strategy, lease.Spec.PreferredHolder = nil, nil
	}
	normalize(lease)
	if errs := validate(lease); len(errs) > 0 {
		return nil, invalid(key.Name, errs...)
	}
	if s.leases[key] != nil {
		return nil, apierrors.NewAlreadyExists(leaseResource, key.Name)
	}
	return s.commit(key, lease, dryRun), nil
}

// put replaces the Lease by the one it is sent, or creates it, as a Lease may be created by PUT.
func (s *Server) put(namespace string, lease *coordinationv1.Lease, dryRun bool) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := types.NamespacedName{Namespace: namespace, Name: lease.Name}
	version, err := parseVersion(lease)
	if err != nil {
		return nil, err
	}
	old := s.leases[key]
	var uid types.UID
	if old != nil {
		uid = old.UID
	}
	if lease.UID != "" && lease.UID != uid {
		return nil, preconditionFailed(key.Name, "UID", string(lease.UID), string(uid))
	}
	if old == nil {
		return s.create(key, lease, dryRun)
	}
	if version == 0 {
		return nil, invalid(key.Name, field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update"))
	}
	return s.replace(key, old, lease, dryRun)
}

// replace stores lease over old, for PUT and PATCH.
func (s *Server) replace(key types.NamespacedName, old, lease *coordinationv1.Lease, dryRun bool) (*coordinationv1.Lease, error) {
	if lease.ResourceVersion != old.ResourceVersion {
		return nil, conflict(key.Name)
	}
	if err := matchNamespace(lease, key.Namespace); err != nil {
		return nil, err
	}
	if lease.UID == "" {
		lease.UID = old.UID
	}
	lease.Generation = old.Generation
	lease.CreationTimestamp = old.CreationTimestamp
	if !s.coordinated {
		if old.Spec.Strategy == nil {
			lease.Spec.Strategy = nil
		}
		if old.Spec.PreferredHolder == nil {
			lease.Spec.PreferredHolder = nil
		}
	}
	normalize(lease)
	errs := validation.ValidateObjectMetaUpdate(&lease.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	if errs = append(errs, validate(lease)...); len(errs) > 0 {
		return nil, invalid(key.Name, errs...)
	}
	if equality.Semantic.DeepEqual(old, lease) {
		return old.DeepCopy(), nil // nothing to write, so no new resourceVersion and no event
	}
	return s.commit(key, lease, dryRun), nil
}

// commit stores lease under a new resourceVersion and notifies the watches.
func (s *Server) commit(key types.NamespacedName, lease *coordinationv1.Lease, dryRun bool) *coordinationv1.Lease {
	if dryRun {
		return lease
	}
	old := s.leases[key]
	version := s.nextVersion()
	lease.ResourceVersion = formatVersion(version)
	s.leases[key] = lease
	change := watch.Added
	if old != nil {
		change = watch.Modified
	}
	s.publish(event{version: version, change: change, key: key, old: old, lease: lease})
	return lease.DeepCopy()
}

// patch is what a server makes of a PATCH: it changes what is stored, and begins again if that has changed meanwhile,
// because admission, which is the user's code, is asked without the lock.
func (s *Server) patch(req Request, pt types.PatchType, data []byte, dryRun bool) (*coordinationv1.Lease, error) {
	if pt == types.ApplyPatchType || pt == "application/apply-patch+cbor" {
		return nil, apierrors.NewMethodNotSupported(leaseResource, "apply")
	}
	key := types.NamespacedName{Namespace: req.Namespace, Name: req.Name}
	for {
		old := s.stored(key)
		if old == nil {
			return nil, notFound(key.Name)
		}
		lease, err := patched(old, pt, data)
		if err != nil {
			return nil, err
		}
		if _, err := parseVersion(lease); err != nil {
			return nil, err
		}
		if err := s.admit(req, lease); err != nil {
			return nil, err
		}
		if result, done, err := s.replaceIfSame(key, old, lease, dryRun); done {
			return result, err
		}
	}
}

func (s *Server) stored(key types.NamespacedName) *coordinationv1.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[key]
}

// replaceIfSame stores lease if old is what is stored; otherwise done is false.
func (s *Server) replaceIfSame(key types.NamespacedName, old, lease *coordinationv1.Lease, dryRun bool) (result *coordinationv1.Lease, done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[key] != old {
		return nil, false, nil
	}
	result, err = s.replace(key, old, lease, dryRun)
	return result, true, err
}

// patched applies a patch to a copy of old, by client-go's own fake.
func patched(old *coordinationv1.Lease, pt types.PatchType, data []byte) (*coordinationv1.Lease, error) {
	switch pt {
	case types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType:
	default:
		return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
			Message: fmt.Sprintf("the patch type %q is unknown", pt),
		}}
	}
	tracker := clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())
	if err := tracker.Add(old.DeepCopy()); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	action := clienttesting.NewPatchAction(coordinationv1.SchemeGroupVersion.WithResource("leases"), old.Namespace, old.Name, pt, data)
	_, obj, err := clienttesting.ObjectReaction(tracker)(action)
	if lease, ok := obj.(*coordinationv1.Lease); ok && err == nil {
		return lease, nil
	}
	if ops := []any{}; pt == types.JSONPatchType && json.Unmarshal(data, &ops) == nil {
		// It can be read, but not applied to this Lease.
		return nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", leaseResource, old.Name, err.Error(), 0, false)
	}
	return nil, apierrors.NewBadRequest(err.Error())
}

func (s *Server) delete(key types.NamespacedName, pre *metav1.Preconditions, dryRun bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.leases[key]
	if old == nil {
		return notFound(key.Name)
	}
	return s.remove(key, old, pre, dryRun)
}

func (s *Server) deleteAll(sel selection, pre *metav1.Preconditions, dryRun bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lease := range s.selected(sel) {
		key := types.NamespacedName{Namespace: lease.Namespace, Name: lease.Name}
		if err := s.remove(key, lease, pre, dryRun); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) remove(key types.NamespacedName, old *coordinationv1.Lease, pre *metav1.Preconditions, dryRun bool) error {
	if pre != nil && pre.UID != nil && *pre.UID != old.UID {
		return preconditionFailed(key.Name, "UID", string(*pre.UID), string(old.UID))
	}
	if pre != nil && pre.ResourceVersion != nil && *pre.ResourceVersion != old.ResourceVersion {
		return preconditionFailed(key.Name, "ResourceVersion", *pre.ResourceVersion, old.ResourceVersion)
	}
	if dryRun {
		return nil
	}
	delete(s.leases, key)
	version := s.nextVersion()
	last := old.DeepCopy()
	last.ResourceVersion = formatVersion(version)
	s.publish(event{version: version, change: watch.Deleted, key: key, old: old, lease: last})
	return nil
}

// selection is what a list or a watch asks for.
type selection struct {
	key    types.NamespacedName // what is fixed, by which watches are found; "" is any
	labels labels.Selector
	fields fields.Selector // all of the field selector; nil where key says it all
}

func parseSelection(namespace string, opts metav1.ListOptions) (selection, error) {
	sel := selection{key: types.NamespacedName{Namespace: namespace}, labels: labels.Everything()}
	fieldSelector, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return sel, apierrors.NewBadRequest(err.Error())
	}
	if sel.labels, err = labels.Parse(opts.LabelSelector); err != nil {
		return sel, apierrors.NewBadRequest(err.Error())
	}
	for _, r := range fieldSelector.Requirements() {
		fixed, except := &sel.key.Name, r.Operator == "!="
		switch {
		case r.Field == "metadata.namespace":
			fixed = &sel.key.Namespace
		case r.Field != "metadata.name":
			return sel, apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s", r.Field))
		}
		if *fixed == "" && !except {
			*fixed = r.Value
		}
		if except || r.Value == "" || r.Value != *fixed {
			sel.fields = fieldSelector
		}
	}
	return sel, nil
}

// matches says whether the Lease of that key and in that state is selected; nil is no Lease.
func (sel selection) matches(lease *coordinationv1.Lease) bool {
	return lease != nil &&
		(sel.key.Namespace == "" || sel.key.Namespace == lease.Namespace) &&
		(sel.key.Name == "" || sel.key.Name == lease.Name) &&
		(sel.labels.Empty() || sel.labels.Matches(labels.Set(lease.Labels))) &&
		(sel.fields == nil || sel.fields.Matches(fields.Set{"metadata.name": lease.Name, "metadata.namespace": lease.Namespace}))
}

// selected returns the stored Leases that sel matches, in the order of their keys.
func (s *Server) selected(sel selection) []*coordinationv1.Lease {
	var found []*coordinationv1.Lease
	if sel.key.Namespace != "" && sel.key.Name != "" {
		if lease := s.leases[sel.key]; sel.matches(lease) {
			found = append(found, lease)
		}
		return found
	}
	for _, lease := range s.leases {
		if sel.matches(lease) {
			found = append(found, lease)
		}
	}
	slices.SortFunc(found, func(a, b *coordinationv1.Lease) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return found
}

func formatVersion(v int64) string { return strconv.FormatInt(v, 10) }

// parseVersion returns the resourceVersion of an object that was sent, 0 if it has none.
func parseVersion(lease *coordinationv1.Lease) (int64, error) {
	if lease.ResourceVersion == "" {
		return 0, nil
	}
	version, err := strconv.ParseUint(lease.ResourceVersion, 10, 63)
	if err != nil {
		return 0, unexplained(err.Error())
	}
	return int64(version), nil
}

// readVersion returns the resourceVersion that a get, list or watch asks for, 0 if it asks for none.
func readVersion(asked string) (int64, error) {
	if asked == "" {
		return 0, nil
	}
	version, err := strconv.ParseUint(asked, 10, 63)
	if err != nil {
		return 0, field.Invalid(field.NewPath("resourceVersion"), asked, err.Error())
	}
	return int64(version), nil
}
