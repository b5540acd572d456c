// Package operator brings Elector to programs built on controller-runtime. There are two ways.
//
// New takes the place of ctrl.NewManager. The manager stays controller-runtime's own: standbys serve webhooks, caches,
// probes and metrics, and a loss of leadership ends the process. What changes is the election.
//
//	mgr, err := operator.New(cfg, ctrl.Options{LeaderElection: true, LeaderElectionID: "orders.example.com" /* unchanged */})
//
// Start returns an error that says why leadership was lost, and matches elector.ErrLost.
//
// Elect does the same to options in a variable, and returns the Elector:
//
//	opts := ctrl.Options{LeaderElection: true, LeaderElectionID: "orders.example.com" /* unchanged */}
//	el, err := operator.Elect(cfg, &opts)
//	if err != nil {
//		return err
//	}
//	mgr, err := ctrl.NewManager(cfg, opts)
//
// NewManager is for processes that must not end with a term. It takes the function that sets up the controllers, and
// calls it for each term: the controllers stop when leadership is lost, and new ones start when it is won again, in the
// same process, with caches that have been kept up to date.
//
//	mgr, err := operator.NewManager(cfg, opts, func(mgr ctrl.Manager) error {
//		return (&OrderReconciler{Client: mgr.GetClient()}).SetupWithManager(mgr)
//	})
//
// What a manager bears only once cannot be done for each term. Such a setup is refused before the second term could fail
// by it, with an error that says where the call belongs.
//
// # Connections
//
// A replica has two connections to the API server, where a manager without an Elector has one. The second is the
// election's: its renewals do not wait behind the requests of controllers, nor behind their rate limit, and when the
// election's connection is dead it is replaced without the manager's. A third is open only while an answer is overdue.
//
// # Events
//
// The election makes the Events on the Lease that a manager makes without an Elector, with the reason of a loss beside,
// over the manager's connection. They need the verbs create and patch on events, as before. To have none, set
// elector.Options.Events to nil in one of the functions that New, Elect and NewManager take last.
//
// # Versions
//
// NewManager reaches into controllers by reflection, because controller-runtime does not show what has to be stopped, and
// Elect reads options that only newer versions have. If this controller-runtime is not one that the package knows, they
// return an error that names its version, and make nothing.
package operator
