package leaderelection

import (
	"time"

	clientgo "k8s.io/client-go/tools/leaderelection"
)

// The types of client-go's package. They are the same types, so that a value of one package goes into the other.
type (
	// CacheSyncWaiter is client-go's.
	CacheSyncWaiter = clientgo.CacheSyncWaiter
	// HealthzAdaptor is client-go's.
	HealthzAdaptor = clientgo.HealthzAdaptor
	// LeaderCallbacks is client-go's.
	LeaderCallbacks = clientgo.LeaderCallbacks
	// LeaderElectionConfig is client-go's.
	LeaderElectionConfig = clientgo.LeaderElectionConfig
	// LeaderElector is client-go's.
	LeaderElector = clientgo.LeaderElector
	// LeaderMetric is client-go's.
	LeaderMetric = clientgo.LeaderMetric
	// LeaseCandidate is client-go's, for coordinated leader election, which this package does not have.
	LeaseCandidate = clientgo.LeaseCandidate
	// MetricsProvider is client-go's.
	MetricsProvider = clientgo.MetricsProvider
)

// JitterFactor is client-go's.
const JitterFactor = clientgo.JitterFactor

// NewCandidate is client-go's. It is a variable, because its arguments are not the same in all versions of client-go.
var NewCandidate = clientgo.NewCandidate

// NewLeaderHealthzAdaptor is client-go's.
func NewLeaderHealthzAdaptor(timeout time.Duration) *HealthzAdaptor {
	return clientgo.NewLeaderHealthzAdaptor(timeout)
}

// SetProvider is client-go's.
func SetProvider(provider MetricsProvider) { clientgo.SetProvider(provider) }
