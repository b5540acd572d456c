package optional

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLabels(t *testing.T) {
	set := map[string]string{"team": "shop"}
	labels, err := Labels(&struct{ Labels map[string]string }{set}, "Labels")
	require.NoError(t, err)
	require.Equal(t, set, labels)

	labels, err = Labels(&struct{ Name string }{}, "Labels")
	require.NoError(t, err)
	require.Nil(t, labels)

	_, err = Labels(&struct{ Labels []string }{}, "Labels")
	require.ErrorContains(t, err, "Labels of")
}
