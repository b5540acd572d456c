package mistake_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/elector-go/elector/internal/mistake"
)

func TestEachLayerNamesItsOwn(t *testing.T) {
	other := errors.New("no client")
	err := fmt.Errorf("lock: %w", fmt.Errorf("elector: %w", errors.Join(other,
		mistake.In("RenewDeadline", "%v: must be less than %v (%v): that is for %v", 10, mistake.Field("LeaseDuration"), 5, mistake.Field("Run")),
		mistake.In("Namespace", "cannot be read: %w", os.ErrNotExist))))
	assert.EqualError(t, err, "lock: elector: no client\n"+
		"Options.RenewDeadline: 10: must be less than LeaseDuration (5): that is for Run\n"+
		"Options.Namespace: cannot be read: file does not exist")
	flags := mistake.Reword(err, mistake.Names{"RenewDeadline": "--renew-deadline", "LeaseDuration": "--lease-duration", "Run": "the program"})
	assert.EqualError(t, flags, "no client\n"+
		"--renew-deadline: 10: must be less than --lease-duration (5): that is for the program\n"+
		"Options.Namespace: cannot be read: file does not exist")
	for _, err := range []error{err, flags} {
		assert.ErrorIs(t, err, other)
		assert.ErrorIs(t, err, os.ErrNotExist)
	}
	assert.Equal(t, other, mistake.Reword(other, nil))
	assert.NoError(t, mistake.Reword(nil, nil))
}
