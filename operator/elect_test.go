package operator

import (
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/leaderelection"
)

func TestElectFillsInTheOptionsOfAManager(t *testing.T) {
	opts := manager.Options{LeaderElection: true, LeaderElectionID: "orders", LeaderElectionNamespace: "shop"}
	el, err := Elect(&rest.Config{}, &opts)
	require.NoError(t, err)
	require.NotEmpty(t, el.Status().Identity)
	require.Equal(t, el.Status().Identity, opts.LeaderElectionResourceLockInterface.Identity())
	require.True(t, opts.LeaderElectionReleaseOnCancel)
	require.Equal(t, forever, *opts.GracefulShutdownTimeout)
	require.Equal(t, 15*time.Second, *opts.LeaseDuration)
	require.Equal(t, leaderelection.LockRenewDeadline, *opts.RenewDeadline)
	require.Equal(t, leaderelection.LockRetryPeriod, *opts.RetryPeriod)

	_, err = Elect(&rest.Config{}, &opts)
	require.ErrorContains(t, err, "LeaderElectionResourceLockInterface: ", "a second time")
}

func TestWithoutLeaderElectionElectChangesNothing(t *testing.T) {
	opts := manager.Options{LeaderElectionID: "orders"}
	el, err := Elect(&rest.Config{}, &opts)
	require.NoError(t, err)
	require.Nil(t, el)
	require.Equal(t, manager.Options{LeaderElectionID: "orders"}, opts)
}

func TestAGracefulShutdownTimeoutThatIsSetIsKeptAndItsCostLogged(t *testing.T) {
	for timeout, logged := range map[time.Duration]bool{time.Minute: true, forever: false} {
		var log strings.Builder
		opts := manager.Options{
			LeaderElection: true, LeaderElectionID: "orders", LeaderElectionNamespace: "shop", GracefulShutdownTimeout: &timeout,
			Logger: funcr.New(func(_, args string) { log.WriteString(args) }, funcr.Options{}),
		}
		_, err := Elect(&rest.Config{}, &opts)
		require.NoError(t, err)
		require.Equal(t, timeout, *opts.GracefulShutdownTimeout)
		require.Equal(t, logged, strings.Contains(log.String(), "while another replica leads"))
	}
}

func TestMistakesInTheOptionsAreReportedTogether(t *testing.T) {
	opts := manager.Options{
		LeaderElection:             true,
		LeaderElectionResourceLock: "configmapsleases",
		RenewDeadline:              ptr.To(20 * time.Second),
	}
	_, err := Elect(nil, &opts)
	for _, field := range []string{"LeaderElectionID: ", "LeaderElectionNamespace: ", "LeaderElectionResourceLock: ", "RenewDeadline", "cfg: "} {
		require.ErrorContains(t, err, field)
	}
	require.Nil(t, opts.LeaderElectionResourceLockInterface)
}

// The names of elector.Options are not those of a manager's options, and of the layers between nobody has heard.
func TestMistakesAreNamedByTheManagersOptions(t *testing.T) {
	opts := manager.Options{
		LeaderElection: true, LeaderElectionID: "X_y", LeaderElectionNamespace: "a.b", LeaseDuration: ptr.To(5 * time.Second),
		LeaderElectionResourceLock: "configmapsleases",
	}
	elect := func(opts manager.Options) error { _, err := Elect(&rest.Config{}, &opts); return err }
	full := func(opts manager.Options) error {
		_, err := NewManager(&rest.Config{}, opts, func(manager.Manager) error { return nil })
		return err
	}
	for _, try := range []func(manager.Options) error{elect, full} {
		err := try(opts)
		for _, says := range []string{`LeaderElectionID: "X_y" is not an object name`, `LeaderElectionNamespace: "a.b" is not`, "LeaderElectionResourceLock: ",
			"RenewDeadline: 10s: must be less than LeaseDuration (5s): the difference is the time the manager has to stop"} {
			require.ErrorContains(t, err, says)
		}
		require.True(t, strings.HasPrefix(err.Error(), "operator: LeaderElection"), err)
		for _, others := range []string{"Options.", "elector: ", "lock: "} {
			require.NotContains(t, err.Error(), others)
		}
	}
}

func TestWithoutAConfigTheErrorSaysWhatIsMissing(t *testing.T) {
	opts := manager.Options{LeaderElection: true, LeaderElectionID: "orders", LeaderElectionNamespace: "shop"}
	const missing = "operator: cfg: required: a *rest.Config, as from ctrl.GetConfig"
	_, err := Elect(nil, &opts)
	require.EqualError(t, err, missing)
	_, err = New(nil, opts)
	require.EqualError(t, err, missing)
	_, err = NewManager(nil, opts, func(manager.Manager) error { return nil })
	require.EqualError(t, err, missing)
	_, err = Elect(&rest.Config{}, nil)
	require.ErrorContains(t, err, "operator: opts: required: ")
	opts.LeaderElectionConfig = &rest.Config{}
	_, err = Elect(nil, &opts)
	require.NoError(t, err)
}

func TestTheElectorsOtherOptionsCanBeSet(t *testing.T) {
	opts := manager.Options{LeaderElection: true, LeaderElectionID: "orders", LeaderElectionNamespace: "shop"}
	el, err := Elect(&rest.Config{}, &opts, func(o *elector.Options) { o.Identity = "shop-7" })
	require.NoError(t, err)
	require.Equal(t, "shop-7", el.Status().Identity)
}

func TestNewMakesAManagerThatElects(t *testing.T) {
	opts := manager.Options{LeaderElection: true, LeaderElectionNamespace: "shop", Metrics: server.Options{BindAddress: "0"}}
	_, err := New(&rest.Config{}, opts)
	require.ErrorContains(t, err, "LeaderElectionID: ")

	opts.LeaderElectionID = "orders"
	var elects bool
	mgr, err := New(&rest.Config{}, opts, func(*elector.Options) { elects = true })
	require.NoError(t, err)
	require.NotNil(t, mgr)
	require.True(t, elects)

	opts.LeaderElection = false
	mgr, err = New(&rest.Config{}, opts)
	require.NoError(t, err)
	require.NotNil(t, mgr)
}
