package leaderelection

// SetExit replaces os.Exit until the function returned is called.
func SetExit(f func(code int)) (restore func()) {
	was := exit
	exit = f
	return func() { exit = was }
}

// Unknown is unknown, for a config of a newer client-go.
var Unknown = unknown
