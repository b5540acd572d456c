// Package elector elects a leader among the replicas of a program, by a coordination.k8s.io/v1 Lease that they share.
// One at a time runs the function given as [Options.Run]; the others stand by.
package elector
