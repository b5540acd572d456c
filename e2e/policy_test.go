package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector/e2e/internal/event"
)

// policySeconds is the least leaseDurationSeconds that requireLongLeases lets pass.
const policySeconds = 10

func TestAReleaseThatAPolicyMakesLongerIsDoneAndBinds(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.requireLongLeases()
	leader, writes, late, gap := stopUnderPolicy(f, ours)
	f.requireOneAtATime()
	require.LessOrEqual(t, writes, 3.0, "writes from just before the stop to the end")
	require.Less(t, late, time.Second, "end of the work to the end of Run")
	require.GreaterOrEqual(t, gap, policySeconds*time.Second-10*time.Millisecond, "the record binds for what it says")
	require.Less(t, gap, policySeconds*time.Second+4*time.Second, "and no longer")
	require.Contains(t, leader.log.String(), "the API server has changed the release, as by an admission policy")
}

// TestClientGoTakesALeaseWithoutAHolderWhateverItsDuration is why its gap is shorter: it does not wait for what the
// policy has made of the release.
func TestClientGoTakesALeaseWithoutAHolderWhateverItsDuration(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.requireLongLeases()
	stopUnderPolicy(f, clientGo)
}

// stopUnderPolicy stops a leader and returns what that took: the writes, the time from the end of its work to the end
// of the election, and the time until the standby's work began.
func stopUnderPolicy(f *fleet, kind electorKind) (leader *replica, writes float64, late, gap time.Duration) {
	leader = f.start(kind)
	f.nextLeader(20 * time.Second)
	f.settle(leader, f.start(kind))
	time.Sleep(retryPeriod)

	before := f.lastRequests(leader)
	f.signal(leader, syscall.SIGTERM)
	end := f.awaitFrom(leader, event.End, 5*time.Second)
	exit := f.awaitFrom(leader, event.Exit, 2*leaseDuration)
	_, begin := f.nextLeader(3 * leaseDuration)
	writes = float64(exit.RequestsNow["PUT"] - before.RequestsNow["PUT"])
	late, gap = exit.At.Sub(end.At), begin.At.Sub(end.At)
	f.t.Logf("%s: %v writes, ended %v after the work, the next leads after %v", kind, writes, late, gap)
	figures.add(policyWrites, kind, writes)
	figures.addTime(policyStop, kind, late)
	figures.addTime(policyGap, kind, gap)
	return leader, writes, late, gap
}

// requireLongLeases has the API server raise each leaseDurationSeconds below policySeconds in the fleet's namespace. It
// skips the test if the server is too old for such policies.
func (f *fleet) requireLongLeases() {
	f.t.Helper()
	admission := shared.cluster.Admin().AdmissionregistrationV1()
	policy := &admissionv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "long-leases-" + f.namespace},
		Spec: admissionv1.MutatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": f.namespace}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{"coordination.k8s.io"}, APIVersions: []string{"v1"}, Resources: []string{"leases"}},
				}}},
			},
			MatchConditions:    []admissionv1.MatchCondition{{Name: "short", Expression: "object.spec.leaseDurationSeconds < 10"}},
			FailurePolicy:      new(admissionv1.Fail),
			ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
			Mutations: []admissionv1.Mutation{{PatchType: admissionv1.PatchTypeJSONPatch, JSONPatch: &admissionv1.JSONPatch{
				Expression: `[JSONPatch{op: "replace", path: "/spec/leaseDurationSeconds", value: 10}]`,
			}}},
		},
	}
	_, err := admission.MutatingAdmissionPolicies().Create(f.t.Context(), policy, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		f.t.Skip("this API server has no MutatingAdmissionPolicy: it came with Kubernetes 1.36")
	}
	require.NoError(f.t, err)
	_, err = admission.MutatingAdmissionPolicyBindings().Create(f.t.Context(), &admissionv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: policy.ObjectMeta,
		Spec:       admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: policy.Name},
	}, metav1.CreateOptions{})
	require.NoError(f.t, err)
	f.awaitPolicy()
}

// awaitPolicy returns when the API server acts by the policy, which it takes up some time after it was made.
func (f *fleet) awaitPolicy() {
	f.t.Helper()
	leases := shared.cluster.Admin().CoordinationV1().Leases(f.namespace)
	require.Eventually(f.t, func() bool {
		lease := newLease("probe")
		lease.Spec.LeaseDurationSeconds = new(int32(1))
		lease, err := leases.Create(f.t.Context(), lease, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && *lease.Spec.LeaseDurationSeconds == policySeconds
	}, time.Minute, 50*time.Millisecond, "the policy is in force")
}
