package clientgo

import "context"

// Both are there to be compiled, and to be read in MIGRATING.md.
var _, _ = before, after

// work works until its ctx ends.
func work(ctx context.Context) { <-ctx.Done() }
