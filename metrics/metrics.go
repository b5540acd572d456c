// Package metrics has the numbers of an election for Prometheus.
//
// A [Collector] is both an elector.Metrics and a prometheus.Collector:
//
//	numbers := metrics.New()
//	prometheus.MustRegister(numbers)
//	el, err := elector.NewForConfig(cfg, elector.Options{Name: "order-controller", Run: work, Metrics: numbers})
//
// One Collector serves all electors of a process; each Lease has the labels namespace and name. What there is:
//
//	leader_election_master_status   1 if this process leads at the moment of the scrape, otherwise 0
//	elector_draining_seconds        for how long the work has been asked to stop and has not returned
//	elector_suspended_seconds       for how long the term has had no authority (Options.RecoveryDeadline)
//	elector_terms_total             terms begun
//	elector_lost_terms_total        terms lost or given up, by reason
//	elector_overruns_total          terms whose work still ran when the Lease was about to end
//	elector_renewal_latency_seconds how long the answers to successful renewals took
//	elector_renewal_left_ratio      what was left of RenewDeadline when they came
//	elector_handover_seconds        how long nobody led before this process did
//	elector_requests_total          requests, by verb and outcome
//	elector_dropped_calls_total     lines of the log and other calls that were dropped, because an earlier one blocked
//
// The file alerts.yaml in this folder has alerts on them, and README.md says why they are as they are.
package metrics

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector"
)

var (
	// status has the name and the help of client-go's gauge, so that dashboards go on working, and that both fit into
	// one registry: in a family the help has to be the same.
	status = prometheus.NewDesc("leader_election_master_status",
		"Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. "+
			"'name' is the string used to identify the lease. Please make sure to group by name.",
		[]string{"namespace", "name"}, nil)

	draining = prometheus.NewDesc("elector_draining_seconds",
		"Seconds since the work was asked to stop, while it has not returned; otherwise 0.", []string{"namespace", "name"}, nil)

	suspended = prometheus.NewDesc("elector_suspended_seconds",
		"Seconds since the term lost its authority without being lost, until it is valid again or over; otherwise 0.", []string{"namespace", "name"}, nil)

	// reasons are the values of the label reason. An unknown one of a later version is "other".
	reasons = map[elector.Reason]string{
		elector.ReasonTakenOver:         "taken_over",
		elector.ReasonDeleted:           "deleted",
		elector.ReasonDeadlinePassed:    "deadline_passed",
		elector.ReasonSteppedDown:       "stepped_down",
		elector.ReasonDuplicateIdentity: "duplicate_identity",
		elector.ReasonUnhealthy:         "unhealthy",
		elector.ReasonRequested:         "requested",
	}

	seconds = []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 30, 60}

	// ratios: by default a renewal without trouble leaves just less than 0.8, and never less than 2/3. After an attempt
	// without an answer 0.46 is left by default, and never less than 0.3.
	ratios = []float64{.05, .1, .15, .2, .25, .3, .4, .5, .6, .65, .7, .75, .8}
)

// A Collector counts what electors report, for Prometheus to scrape. Make it with New. Its methods may be called from
// any goroutine.
//
// Where several candidates for the same Lease are in one process, as in tests, give each a Collector of its own, or
// their numbers are added up.
type Collector struct {
	elector.NoMetrics

	terms     *prometheus.CounterVec
	lost      *prometheus.CounterVec
	overruns  *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	left      *prometheus.HistogramVec
	handovers *prometheus.HistogramVec
	requests  *prometheus.CounterVec
	dropped   *prometheus.CounterVec

	mu   sync.Mutex                            // guards last
	last map[types.NamespacedName]elector.Term // each says itself whether it is still valid
}

var (
	_ elector.Metrics      = (*Collector)(nil)
	_ prometheus.Collector = (*Collector)(nil)
)

// New returns a Collector without numbers. It is registered nowhere.
func New() *Collector {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"namespace", "name"}, labels...))
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"namespace", "name"})
	}
	return &Collector{
		terms:    counter("elector_terms_total", "Terms of leadership begun by this process."),
		lost:     counter("elector_lost_terms_total", "Terms that ended by loss, or by stepping down, by reason.", "reason"),
		overruns: counter("elector_overruns_total", "Terms whose work still ran when the lease was about to end."),
		latency:  histogram("elector_renewal_latency_seconds", "Time from sending a successful renewal to its answer.", seconds),
		left: histogram("elector_renewal_left_ratio",
			"Share of RenewDeadline that was left when the answer to a successful renewal came: 2/3 or more when all is well, 0 when it came too late.", ratios),
		handovers: histogram("elector_handover_seconds",
			"Time from the last sign of another's hold on the lease (its release, or the last renewal of one that crashed) to the beginning of this process's term.", seconds),
		requests: counter("elector_requests_total", "Requests for the lease to the Kubernetes API, by verb and outcome.", "verb", "outcome"),
		dropped:  counter("elector_dropped_calls_total", "Calls to the log, Events, OnNewLeader or Metrics that were dropped, because an earlier one did not return for long.", "calls"),
		last:     map[types.NamespacedName]elector.Term{},
	}
}

// Term is part of elector.Metrics.
func (c *Collector) Term(lease types.NamespacedName, term elector.Term) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.last[lease]; !known {
		c.last[lease] = term
		c.begin(lease)
	}
	if term == (elector.Term{}) {
		return // whatever the term before was, it says itself that it is over
	}
	c.last[lease] = term
	c.terms.WithLabelValues(lease.Namespace, lease.Name).Inc()
}

// begin makes the series that alerts read: increase() does not see a counter appear with its first event.
func (c *Collector) begin(lease types.NamespacedName) {
	c.terms.WithLabelValues(lease.Namespace, lease.Name)
	c.overruns.WithLabelValues(lease.Namespace, lease.Name)
	c.latency.WithLabelValues(lease.Namespace, lease.Name)
	c.left.WithLabelValues(lease.Namespace, lease.Name)
	c.handovers.WithLabelValues(lease.Namespace, lease.Name)
	for _, reason := range reasons {
		c.lost.WithLabelValues(lease.Namespace, lease.Name, reason)
	}
	for _, verb := range []string{"get", "create", "update", "watch"} {
		for _, outcome := range expected {
			c.requests.WithLabelValues(lease.Namespace, lease.Name, verb, outcome)
		}
	}
}

// Lost is part of elector.Metrics.
func (c *Collector) Lost(lease types.NamespacedName, reason elector.Reason) {
	value, known := reasons[reason]
	if !known {
		value = "other"
	}
	c.lost.WithLabelValues(lease.Namespace, lease.Name, value).Inc()
}

// Renewed is part of elector.Metrics.
func (c *Collector) Renewed(lease types.NamespacedName, latency, left, renewDeadline time.Duration) {
	c.latency.WithLabelValues(lease.Namespace, lease.Name).Observe(latency.Seconds())
	c.left.WithLabelValues(lease.Namespace, lease.Name).Observe(left.Seconds() / renewDeadline.Seconds())
}

// HandedOver is part of elector.Metrics.
func (c *Collector) HandedOver(lease types.NamespacedName, gap time.Duration) {
	c.handovers.WithLabelValues(lease.Namespace, lease.Name).Observe(gap.Seconds())
}

// Overrun is part of elector.Metrics.
func (c *Collector) Overrun(lease types.NamespacedName) {
	c.overruns.WithLabelValues(lease.Namespace, lease.Name).Inc()
}

// Request is part of elector.Metrics.
func (c *Collector) Request(lease types.NamespacedName, verb string, err error) {
	c.requests.WithLabelValues(lease.Namespace, lease.Name, verb, outcome(err)).Inc()
}

// Dropped is part of elector.Metrics.
func (c *Collector) Dropped(lease types.NamespacedName, what string, n int) {
	c.dropped.WithLabelValues(lease.Namespace, lease.Name, what).Add(float64(n))
}

// Describe describes nothing, which makes this an unchecked Collector: controller-runtime's registry already has a
// leader_election_master_status with fewer labels, and would refuse a Collector that is described. So do not register a
// Collector twice: nothing would refuse that but the scrape.
func (c *Collector) Describe(chan<- *prometheus.Desc) {}

// Collect is a scrape. Whether this process leads, and for how long it drains, is worked out here and now: nobody reports
// the end of a term that ran out, and a suspended process could not.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for lease, term := range c.current() {
		leading := 0.0
		if term.Valid() {
			leading = 1
		}
		ch <- prometheus.MustNewConstMetric(status, prometheus.GaugeValue, leading, lease.Namespace, lease.Name)
		drains := 0.0
		if since := term.Draining(); !since.IsZero() {
			drains = time.Since(since).Seconds()
		}
		ch <- prometheus.MustNewConstMetric(draining, prometheus.GaugeValue, drains, lease.Namespace, lease.Name)
		pause := 0.0
		if since := term.Suspended(); !since.IsZero() {
			pause = time.Since(since).Seconds()
		}
		ch <- prometheus.MustNewConstMetric(suspended, prometheus.GaugeValue, pause, lease.Namespace, lease.Name)
	}
	for _, vec := range []prometheus.Collector{c.terms, c.lost, c.overruns, c.latency, c.left, c.handovers, c.requests, c.dropped} {
		vec.Collect(ch)
	}
}

// current copies the last terms, so that nothing is locked while the scrape takes its time.
func (c *Collector) current() map[types.NamespacedName]elector.Term {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.last)
}
