package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/elector-go/elector/electortest"
)

// serveLeases is electortest's API over HTTP, as far as an elector uses it, for replicas that are processes.
func serveLeases(api *electortest.Server) http.Handler {
	const all = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
	leases := func(r *http.Request) coordinationv1client.LeaseInterface {
		return api.Client("http").CoordinationV1().Leases(r.PathValue("namespace"))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+all, func(w http.ResponseWriter, r *http.Request) { serveWatch(w, r, leases(r)) })
	mux.HandleFunc("GET "+all+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		lease, err := leases(r).Get(r.Context(), r.PathValue("name"), metav1.GetOptions{})
		answer(w, lease, err)
	})
	mux.HandleFunc("POST "+all, func(w http.ResponseWriter, r *http.Request) {
		lease, err := readLease(r)
		if err == nil {
			lease, err = leases(r).Create(r.Context(), lease, metav1.CreateOptions{})
		}
		answer(w, lease, err)
	})
	mux.HandleFunc("PUT "+all+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		lease, err := readLease(r)
		if err == nil {
			lease, err = leases(r).Update(r.Context(), lease, metav1.UpdateOptions{})
		}
		answer(w, lease, err)
	})
	return mux
}

func readLease(r *http.Request) (*coordinationv1.Lease, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	object, err := runtime.Decode(scheme.Codecs.UniversalDeserializer(), body) // protobuf or JSON
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	lease, ok := object.(*coordinationv1.Lease)
	if !ok {
		return nil, apierrors.NewBadRequest("not a Lease")
	}
	return lease, nil
}

func answer(w http.ResponseWriter, lease *coordinationv1.Lease, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		_ = json.NewEncoder(w).Encode(typed(lease))
		return
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		status = apierrors.NewInternalError(err)
	}
	s := status.Status()
	w.WriteHeader(int(s.Code))
	_ = json.NewEncoder(w).Encode(typed(&s))
}

// typed fills in apiVersion and kind, which objects have on the wire only.
func typed(o runtime.Object) runtime.Object {
	if kinds, _, err := scheme.Scheme.ObjectKinds(o); err == nil {
		o.GetObjectKind().SetGroupVersionKind(kinds[0])
	}
	return o
}

func serveWatch(w http.ResponseWriter, r *http.Request, leases coordinationv1client.LeaseInterface) {
	events, err := leases.Watch(r.Context(), metav1.ListOptions{FieldSelector: r.URL.Query().Get("fieldSelector")})
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer events.Stop()
	w.Header().Set("Content-Type", "application/json")
	for {
		w.(http.Flusher).Flush()
		select {
		case ev, more := <-events.ResultChan():
			if !more {
				return
			}
			_ = json.NewEncoder(w).Encode(struct {
				Type   watch.EventType `json:"type"`
				Object runtime.Object  `json:"object"`
			}{ev.Type, typed(ev.Object)})
		case <-r.Context().Done():
			return
		}
	}
}
