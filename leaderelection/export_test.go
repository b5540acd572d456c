package leaderelection

// SetExit replaces os.Exit until the function returned is called.
func SetExit(f func(code int)) (restore func()) {
	was := exit
	exit = f
	return func() { exit = was }
}

// Unknown and RecoveryOf are unknown and recoveryOf, for configs of a newer client-go.
var (
	Unknown    = unknown
	RecoveryOf = recoveryOf
)

// NoLimit is noLimit.
const NoLimit = noLimit
