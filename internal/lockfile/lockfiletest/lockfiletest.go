// Package lockfiletest makes files as processes leave them behind that were killed. In virtual time no process can die.
package lockfiletest

import (
	"encoding/json"
	"os"

	"github.com/elector-go/elector/internal/lockfile"
)

// Inherit makes a file at path to whose writer, of the file at from, has died. The two may be the same path: then who had
// the file before has the lock of one without a name.
func Inherit(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var contents struct{ State json.RawMessage }
	if len(data) > 0 { // it is empty until its writer has first stored something
		if err := json.Unmarshal(data, &contents); err != nil {
			return err
		}
	}
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		return err
	}
	file, err := lockfile.Open(to)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Store(contents.State)
}
