// Package lock puts an Elector under client-go's leader election, or under what is built on it, by client-go's own
// extension point: a resourcelock.Interface.
package lock
