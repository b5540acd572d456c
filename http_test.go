package elector_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// serveLeases is electortest's API over HTTP, as far as an elector uses it, for tests of what lies between.
func serveLeases(api *electortest.Server) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// /apis/coordination.k8s.io/v1/namespaces/{namespace}/leases[/{name}]
		path := strings.Split(strings.TrimPrefix(r.URL.Path, "/apis/coordination.k8s.io/v1/namespaces/"), "/")
		leases := api.Client("http").CoordinationV1().Leases(path[0])
		if r.URL.Query().Get("watch") != "" {
			serveWatch(w, r, leases)
			return
		}
		var lease *coordinationv1.Lease
		var err error
		switch r.Method {
		case http.MethodGet:
			lease, err = leases.Get(r.Context(), path[2], metav1.GetOptions{})
		case http.MethodPost:
			lease, err = leases.Create(r.Context(), readLease(r), metav1.CreateOptions{})
		case http.MethodPut:
			lease, err = leases.Update(r.Context(), readLease(r), metav1.UpdateOptions{})
		}
		answer(w, lease, err)
	})
}

func readLease(r *http.Request) *coordinationv1.Lease {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	lease, err := runtime.Decode(scheme.Codecs.UniversalDeserializer(), body) // protobuf or JSON
	if err != nil {
		panic(err)
	}
	return lease.(*coordinationv1.Lease)
}

func answer(w http.ResponseWriter, lease *coordinationv1.Lease, err error) {
	w.Header().Set("Content-Type", "application/json")
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		s := status.Status()
		w.WriteHeader(int(s.Code))
		_ = json.NewEncoder(w).Encode(typed(&s))
		return
	}
	_ = json.NewEncoder(w).Encode(typed(lease))
}

func typed(o runtime.Object) runtime.Object {
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil {
		panic(err)
	}
	o.GetObjectKind().SetGroupVersionKind(kinds[0])
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
	w.WriteHeader(http.StatusOK)
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

func TestAClientOfItsOwnSharesNeitherLimiterNorUserAgentNorConfig(t *testing.T) {
	api := electortest.NewServer()
	defer api.Close()
	var mu sync.Mutex
	agents := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		agents[r.UserAgent()] = true
		mu.Unlock()
		serveLeases(api).ServeHTTP(w, r)
	}))
	defer server.Close()

	// A limiter that lets nothing through would starve anybody who shares it.
	cfg := &rest.Config{Host: server.URL, UserAgent: "shop/v1", RateLimiter: flowcontrol.NewFakeNeverRateLimiter(), Timeout: time.Nanosecond}
	before := *cfg
	led := false
	e, err := elector.NewForConfig(cfg, elector.Options{Namespace: namespace, Name: name, Run: func(context.Context) error { led = true; return nil }})
	require.NoError(t, err)
	require.NoError(t, e.Run(t.Context()))
	assert.True(t, led)
	assert.Equal(t, before, *cfg)
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, map[string]bool{"shop/v1/leader-election": true}, agents)
}
