package leaderelection

import "k8s.io/klog/v2"

// SetExit replaces os.Exit until the function returned is called.
func SetExit(f func(code int)) (restore func()) {
	was := exit
	exit = f
	return func() { exit = was }
}

// SetLog replaces klog.Background until the function returned is called.
func SetLog(log klog.Logger) (restore func()) {
	was := background
	background = func() klog.Logger { return log }
	return func() { background = was }
}

// Unknown and RecoveryOf are unknown and recoveryOf, for configs of a newer client-go.
var (
	Unknown    = unknown
	RecoveryOf = recoveryOf
)

// NoLimit is noLimit.
const NoLimit = noLimit
