package elector_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/internal/reading"
)

// TestWhatPeopleReadOfARecordIsWhatACandidateDoes compares what a record is said to mean with how long a candidate waits
// that sees it for the first time.
func TestWhatPeopleReadOfARecordIsWhatACandidateDoes(t *testing.T) {
	for _, c := range []struct {
		name    string
		state   reading.State
		binds   time.Duration
		holder  string
		seconds int32
		acquire time.Duration // before now; negative for no time
		renewed time.Duration // likewise
	}{
		{"blank", reading.Free, 0, "", 0, -1, -1},
		{"blank with a duration", reading.Free, 0, "", 30, -1, -1},
		{"released", reading.Free, 0, "", 1, time.Minute, time.Second},
		{"released without acquireTime", reading.Free, 0, "", 1, -1, time.Second},
		{"released with notice", reading.Free, 8 * time.Second, "", 8, 0, 0},
		{"blanked by an edit", reading.Edited, 40 * time.Second, "", 40, time.Minute, time.Second},
		{"held", reading.Held, 20 * time.Second, "pod-9", 20, time.Minute, time.Second},
		{"held, but does not say how long", reading.Held, 15 * time.Second, "pod-9", 0, time.Minute, time.Second},
		{"held, but does not say when", reading.Edited, 20 * time.Second, "pod-9", 20, -1, -1},
		{"held, but says nothing", reading.Edited, 15 * time.Second, "pod-9", 0, -1, -1},
		{"expired", reading.Expired, 20 * time.Second, "pod-9", 20, time.Hour, time.Minute},
		{"paused", reading.Paused, time.Hour, "paused", 3600, time.Minute, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			api := electortest.NewServer()
			defer api.Close()
			record := coordinationv1.LeaseSpec{}
			if c.holder != "" {
				record.HolderIdentity = &c.holder
			}
			if c.seconds != 0 {
				record.LeaseDurationSeconds = &c.seconds
			}
			ago := func(d time.Duration) *metav1.MicroTime {
				if d < 0 {
					return nil
				}
				at := metav1.NewMicroTime(time.Now().Add(-d))
				return &at
			}
			record.AcquireTime, record.RenewTime = ago(c.acquire), ago(c.renewed)
			lease, err := api.Client("kubectl").CoordinationV1().Leases("shop").Create(t.Context(), &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Name: "order-controller"}, Spec: record,
			}, metav1.CreateOptions{})
			require.NoError(t, err, c.name)

			r := reading.Read(lease, time.Now())
			assert.Equal(t, []any{c.state, c.binds}, []any{r.State, r.Binds}, c.name)
			began := time.Now()
			var waited time.Duration
			el, err := elector.New(api.Client("a").CoordinationV1(), elector.Options{
				Namespace: "shop", Name: "order-controller", Identity: "a",
				Run: func(context.Context) error { waited = time.Since(began); return nil },
			})
			require.NoError(t, err)
			require.NoError(t, el.Run(t.Context()))
			assert.GreaterOrEqual(t, waited, r.Binds, c.name)
			assert.Less(t, waited, r.Binds+time.Second, c.name)
		})
	}
	assert.Equal(t, reading.Missing, reading.Read(nil, time.Now()).State)
}
