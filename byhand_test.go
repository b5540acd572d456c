package elector_test

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// byHand carries out the n-th merge patch of the README's section "By hand", as kubectl would.
func byHand(t *testing.T, api *electortest.Server, n int) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(readme), "\n## By hand\n")
	require.True(t, found)
	patches := regexp.MustCompile(`-p '(\{.*\})'\n`).FindAllStringSubmatch(section, -1)
	require.Len(t, patches, 2)
	patch := strings.ReplaceAll(patches[n][1], "'$now'", time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"))

	leases := api.Client("kubectl").CoordinationV1().Leases("shop")
	lease, err := leases.Get(context.Background(), "order-controller", metav1.GetOptions{})
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(patch), lease))
	_, err = leases.Update(context.Background(), lease, metav1.UpdateOptions{})
	require.NoError(t, err)
}

// twoByHand starts two candidates, and returns them when one of them leads.
func twoByHand(t *testing.T, api *electortest.Server) (electors map[string]*elector.Elector, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var replicas sync.WaitGroup
	electors = map[string]*elector.Elector{}
	for _, name := range []string{"a", "b"} {
		el, err := elector.New(api.Client(name).CoordinationV1(), elector.Options{
			Namespace: "shop", Name: "order-controller", Identity: name,
			Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
		})
		require.NoError(t, err)
		electors[name] = el
		replicas.Go(func() { _ = el.Run(ctx) })
	}
	time.Sleep(time.Minute)
	require.NotEqual(t, electors["a"].IsLeader(), electors["b"].IsLeader())
	return electors, func() { cancel(); replicas.Wait() }
}

func TestAnElectionPausedByHandHasNoLeaderUntilItIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := electortest.NewServer()
		defer api.Close()
		electors, stop := twoByHand(t, api)
		defer stop()
		byHand(t, api, 0)
		time.Sleep(time.Second)
		for range 23 {
			assert.False(t, electors["a"].IsLeader() || electors["b"].IsLeader(), "paused")
			time.Sleep(time.Hour)
		}
		byHand(t, api, 1)
		time.Sleep(time.Second)
		assert.NotEqual(t, electors["a"].IsLeader(), electors["b"].IsLeader(), "resumed")
	})
}

func TestTheLeaseOfADeadLeaderIsFreedByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := electortest.NewServer()
		defer api.Close()
		electors, stop := twoByHand(t, api)
		defer stop()
		dead, other := electors["a"], electors["b"]
		if other.IsLeader() {
			dead, other = other, dead
		}
		api.Client(dead.Status().Identity).Partition(electortest.Both)
		time.Sleep(time.Second)
		require.False(t, other.IsLeader())
		byHand(t, api, 1)
		time.Sleep(time.Second)
		assert.True(t, other.IsLeader())
	})
}
