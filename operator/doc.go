// Package operator brings Elector to programs built on controller-runtime. There are two ways.
//
// New takes the place of ctrl.NewManager. The manager stays controller-runtime's own: standbys serve webhooks, caches,
// probes and metrics, and a loss of leadership ends the process. What changes is the election.
//
//	mgr, err := operator.New(cfg, ctrl.Options{LeaderElection: true, LeaderElectionID: "orders.example.com" /* unchanged */})
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
package operator
