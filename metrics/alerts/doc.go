// Package alerts only holds the tests of ../alerts.yaml. It is a module of its own because they need Prometheus itself,
// which users of the metrics do not.
package alerts
