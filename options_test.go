package elector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
)

func valid() Options {
	return Options{Namespace: "shop", Name: "orders", Run: func(context.Context) error { return nil }}
}

func TestEveryMistakeInOptionsIsNamedWithItsField(t *testing.T) {
	leases := fake.NewClientset().CoordinationV1()
	for name, test := range map[string]struct {
		change func(o *Options)
		want   string // "" for none
	}{
		"none":                   {func(*Options) {}, ""},
		"no name":                {func(o *Options) { o.Name = "" }, "Options.Name: required"},
		"a bad name":             {func(o *Options) { o.Name = "Orders!" }, `Options.Name: "Orders!" is not an object name`},
		"a bad namespace":        {func(o *Options) { o.Namespace = "a.b" }, `Options.Namespace: "a.b" is not a namespace's name`},
		"no callback":            {func(o *Options) { o.Run = nil }, "Options.Run: required"},
		"a bad label":            {func(o *Options) { o.Labels = map[string]string{"a b": "c"} }, "Options.Labels"},
		"a fraction of a second": {func(o *Options) { o.LeaseDuration = 15500 * time.Millisecond }, "Options.LeaseDuration: 15.5s: must be whole seconds"},
		"a negative duration":    {func(o *Options) { o.LeaseDuration = -time.Second }, "Options.LeaseDuration: -1s"},
		"too long a duration":    {func(o *Options) { o.LeaseDuration = 1 << 32 * time.Second }, "Options.LeaseDuration: 1193046h28m16s"},
		"the longest duration":   {func(o *Options) { o.LeaseDuration = (1<<31 - 1) * time.Second }, ""},
		"no stop budget":         {func(o *Options) { o.RenewDeadline = 15 * time.Second }, "Options.RenewDeadline: 15s: must be less than LeaseDuration (15s)"},
		"the default deadline":   {func(o *Options) { o.LeaseDuration = 5 * time.Second }, "Options.RenewDeadline: 10s: must be less than LeaseDuration (5s)"},
		"a negative deadline":    {func(o *Options) { o.RenewDeadline = -1 }, "Options.RenewDeadline: -1ns: must be at least 300ms"},
		"too long a retry":       {func(o *Options) { o.RetryPeriod = 5*time.Second + 1 }, "Options.RetryPeriod: 5.000000001s: must be at most half of RenewDeadline (10s)"},
		"half of the deadline":   {func(o *Options) { o.RetryPeriod = 5 * time.Second }, ""},
		"a negative retry":       {func(o *Options) { o.RetryPeriod = -1 }, "Options.RetryPeriod: -1ns: must be at least 10ms"},
		"the shortest that can be": {func(o *Options) {
			o.LeaseDuration, o.RenewDeadline, o.RetryPeriod = time.Second, 300*time.Millisecond, 10*time.Millisecond
		}, ""},
		"too short a deadline":             {func(o *Options) { o.RenewDeadline, o.RetryPeriod = 299*time.Millisecond, 10*time.Millisecond }, "Options.RenewDeadline: 299ms: must be at least 300ms"},
		"the smallest stop budget":         {func(o *Options) { o.LeaseDuration, o.RenewDeadline = 100*time.Second, 99900*time.Millisecond }, ""},
		"too small a stop budget":          {func(o *Options) { o.RenewDeadline = 14901 * time.Millisecond }, "Options.RenewDeadline: 14.901s: must be less than LeaseDuration (15s) by at least 100ms"},
		"a stop budget that clocks use up": {func(o *Options) { o.LeaseDuration, o.RenewDeadline = time.Hour, time.Hour-3*time.Second }, "by at least 3.6s"},
		"a subdomain as the name":          {func(o *Options) { o.Name = "orders.example.com" }, ""},
		"an identity of one's own ":        {func(o *Options) { o.Identity = "pod-0" }, ""},
		"an identity with a space":         {func(o *Options) { o.Identity = "Größe 5" }, ""},
		"an identity of two lines":         {func(o *Options) { o.Identity = "a\nb" }, `Options.Identity: "a\nb": must have no control characters`},
	} {
		t.Run(name, func(t *testing.T) {
			o := valid()
			test.change(&o)
			e, err := New(leases, o)
			if test.want == "" {
				require.NoError(t, err)
				assert.NotNil(t, e)
				return
			}
			require.Error(t, err)
			assert.Nil(t, e)
			assert.Contains(t, err.Error(), test.want)
			assert.True(t, strings.HasPrefix(err.Error(), "elector: "))
		})
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	_, err := New(nil, Options{Namespace: "Shop", LeaseDuration: 1, RenewDeadline: -1, RetryPeriod: -1, Labels: map[string]string{"": ""}})
	require.Error(t, err)
	for _, field := range []string{"leases: required", "Options.Namespace", "Options.Name", "Options.Run", "Options.Labels",
		"Options.LeaseDuration", "Options.RenewDeadline", "Options.RetryPeriod"} {
		assert.ErrorContains(t, err, field)
	}
}

func TestDefaults(t *testing.T) {
	o, err := valid().complete()
	require.NoError(t, err)
	assert.Equal(t, 15*time.Second, o.LeaseDuration)
	assert.Equal(t, 10*time.Second, o.RenewDeadline)
	assert.Equal(t, 2*time.Second, o.RetryPeriod)
	host, err := os.Hostname()
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(o.Identity, host+"_"))
	other, err := valid().complete()
	require.NoError(t, err)
	assert.NotEqual(t, o.Identity, other.Identity)
}

func TestTheDefaultNamespaceIsThePodsOwn(t *testing.T) {
	before := namespaceFile
	defer func() { namespaceFile = before }()
	namespaceFile = filepath.Join(t.TempDir(), "namespace")
	o := valid()
	o.Namespace = ""
	_, err := o.complete()
	assert.ErrorContains(t, err, "Options.Namespace: required outside a pod")
	assert.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, os.WriteFile(namespaceFile, []byte("shop\n"), 0o600))
	o, err = o.complete()
	require.NoError(t, err)
	assert.Equal(t, "shop", o.Namespace)
}

func TestLabelsAreCopied(t *testing.T) {
	o := valid()
	o.Labels = map[string]string{"a": "b"}
	e, err := New(fake.NewClientset().CoordinationV1(), o)
	require.NoError(t, err)
	o.Labels["a"] = "changed"
	assert.Equal(t, "b", e.opts.Labels["a"])
}

func TestErrorsSayWhatToDo(t *testing.T) {
	leases := schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	for err, want := range map[error]string{
		apierrors.NewForbidden(leases, "x", errors.New(`User "u" cannot update resource "leases" in API group "coordination.k8s.io"`)): `update lease shop/orders: forbidden: grant the verb "update" on resource "leases" of apiGroup "coordination.k8s.io" in namespace "shop"`,
		apierrors.NewForbidden(leases, "x", errors.New("no, says a policy")):                                                           `update lease shop/orders: forbidden by a webhook`,
		apierrors.NewUnauthorized("no"):                           "update lease shop/orders: unauthorized: the API server does not accept this client's credentials",
		apierrors.NewNotFound(schema.GroupResource{}, "shop"):     `update lease shop/orders: not found: create namespace "shop"`,
		fmt.Errorf("wrapped: %w", apierrors.NewUnauthorized("x")): "unauthorized",
		errors.New("connection refused"):                          "update lease shop/orders: connection refused",
	} {
		got := explain(err, "update", "shop", "orders")
		assert.ErrorContains(t, got, want)
		assert.ErrorIs(t, got, err)
	}
}

func TestALostErrorSaysWhy(t *testing.T) {
	for want, err := range map[string]*LostError{
		`elector: leadership lost: taken over by "b"`:     {ReasonTakenOver, "b"},
		`elector: leadership lost: taken over`:            {ReasonTakenOver, ""},
		`elector: leadership lost: lease deleted`:         {ReasonDeleted, ""},
		`elector: leadership lost: renew deadline passed`: {ReasonDeadlinePassed, "a"},
		`elector: leadership lost: stepped down`:          {ReasonSteppedDown, "a"},
		`elector: leadership lost: duplicate identity: another process also calls itself "a"; each needs an identity of its own`: {ReasonDuplicateIdentity, "a"},
		`elector: leadership lost: Reason(0)`: {},
	} {
		assert.EqualError(t, err, want)
		assert.ErrorIs(t, fmt.Errorf("manager: %w", err), ErrLost)
		assert.NotErrorIs(t, err, ErrNotLeader)
	}
}
