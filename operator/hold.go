package operator

import (
	"net/http"

	"k8s.io/client-go/rest"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/internal/write"
)

// A holding transport holds writes back while the term is suspended, in front of the write gate, which would refuse them.
// A refused write puts its request off, by ever more: the next try would come long after the API is back.
type holding struct {
	elector *elector.Elector
	gate    http.RoundTripper
}

// held is cfg for clients that write only while a term is valid, and whose writes wait out a suspension.
func held(cfg *rest.Config, el *elector.Elector) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &holding{el, el.WrapTransport(next)} })
	return cfg
}

// WrappedRoundTripper lets client-go find the transport behind it.
func (h *holding) WrappedRoundTripper() http.RoundTripper { return h.gate }

// RoundTrip waits as long as the term is suspended and the request's ctx lasts. The gate has the last word.
func (h *holding) RoundTrip(req *http.Request) (*http.Response, error) {
	if s := h.elector.Status(); write.Is(req) && !s.Suspended.IsZero() {
		_ = s.Term.Await(req.Context())
	}
	return h.gate.RoundTrip(req)
}

// A passing transport is a holding one for a manager that runs on standbys, too: what they write passes, such as the
// certificates of webhooks.
type passing struct {
	holding
	next http.RoundTripper
}

// passed is cfg for clients whose writes wait out a suspension.
func passed(cfg *rest.Config, el *elector.Elector) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &passing{holding{el, el.WrapTransport(next)}, next}
	})
	return cfg
}

// RoundTrip lets a request pass while there is no term to protect.
func (p *passing) RoundTrip(req *http.Request) (*http.Response, error) {
	if p.elector.Status().Term.IsZero() {
		return p.next.RoundTrip(req)
	}
	return p.holding.RoundTrip(req)
}
