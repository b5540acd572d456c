//go:build !unix

package sim

import "time"

var start = time.Now()

// cpu is the time that has passed, where the system does not say how much of it this process has used.
func cpu() time.Duration { return time.Since(start) }
