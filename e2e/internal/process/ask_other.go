//go:build !unix

package process

import "os"

var ask = []os.Signal{os.Kill}
