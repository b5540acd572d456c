package main

import ctrl "sigs.k8s.io/controller-runtime"

func start(mgr ctrl.Manager) error { return mgr.Start(ctrl.SetupSignalHandler()) }
