package write_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/elector-go/elector/internal/write"
)

func TestIs(t *testing.T) {
	for request, is := range map[[2]string]bool{
		{"", "/api/v1/pods"}:                                  false, // as http.Request has it
		{"GET", "/api/v1/pods"}:                               false,
		{"HEAD", "/api/v1/pods"}:                              false,
		{"OPTIONS", "/api/v1/pods"}:                           false,
		{"POST", "/api/v1/namespaces/shop/pods"}:              true,
		{"PUT", "/api/v1/namespaces/shop/pods/a"}:             true,
		{"PATCH", "/api/v1/namespaces/shop/pods/a"}:           true,
		{"DELETE", "/api/v1/namespaces/shop/pods/a"}:          true,
		{"BREW", "/api/v1/namespaces/shop/pods/a"}:            true, // what nobody knows
		{"GET", "/api/v1/namespaces/shop/pods/exec"}:          false,
		{"GET", "/api/v1/namespaces/shop/pods/a/log"}:         false,
		{"GET", "/api/v1/namespaces/shop/pods/a/exec"}:        true, // by a WebSocket
		{"GET", "/api/v1/namespaces/shop/pods/a/attach"}:      true,
		{"GET", "/api/v1/namespaces/shop/pods/a/portforward"}: true,
		{"GET", "/apis/example.com/v1/pods/a/exec/more"}:      false,

		{"POST", "/apis/authentication.k8s.io/v1/tokenreviews"}:                             false,
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"}:                  false,
		{"POST", "/apis/authorization.k8s.io/v1/namespaces/shop/localsubjectaccessreviews"}: false,
		{"POST", "/clusters/a/apis/authorization.k8s.io/v1/subjectaccessreviews"}:           false, // behind a proxy
		{"PUT", "/apis/authorization.k8s.io/v1/subjectaccessreviews"}:                       true,
		{"POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews/a"}:                    true,
		{"POST", "/apis/authorization.k8s.io.example.com/v1/subjectaccessreviews"}:          true,
		{"POST", "/apis/reviews.example.com/v1/bookreviews"}:                                true,
		{"POST", "/api/v1/namespaces/shop/serviceaccounts/a/token"}:                         true,
	} {
		r := httptest.NewRequest(http.MethodGet, request[1], nil)
		r.Method = request[0]
		if write.Is(r) != is {
			t.Errorf("%s %s: want %v", request[0], request[1], is)
		}
	}
}
