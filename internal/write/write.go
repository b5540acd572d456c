// Package write tells the writes to an API server from what only reads.
package write

import (
	"net/http"
	"regexp"
)

// review is the path of a question that is asked by a POST and changes nothing.
var review = regexp.MustCompile(`/apis/(authentication|authorization)\.k8s\.io/[^/]+/(namespaces/[^/]+/)?[a-z]+reviews$`)

// into is the path of a connection into a pod, which a WebSocket opens by a GET.
var into = regexp.MustCompile(`/pods/[^/]+/(exec|attach|portforward)$`)

// Is reports whether a request may change something, or opens a connection into a pod.
func Is(req *http.Request) bool { return !reads(req) }

func reads(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet:
		return !into.MatchString(req.URL.Path)
	case http.MethodHead, http.MethodOptions:
		return true
	default:
		return req.Method == http.MethodPost && review.MatchString(req.URL.Path)
	}
}
