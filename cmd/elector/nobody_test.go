//go:build linux

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector/e2e/cluster"
)

// A cause of why nobody leads, or nobody works, on a real API server.
type cause struct {
	happens func(s *stage) *replica
	code    int
	status  string // what elector status says, but for times and names
	sees    string // what of that, or of the log, begins the row of OPERATIONS.md that is for it
	log     string // what the replica's log says, of what that row names
}

var causes = map[string]cause{
	"TheRightToCreateIsMissing": {
		func(s *stage) *replica {
			s.grant("get", "watch")
			return s.run(polite)
		}, exitNobody, `
State:  missing

No such Lease. Either no candidate has run yet (check their logs: they may lack the verb create), or the name or the namespace is another.
`, "status says `missing`", "forbidden: grant the verb",
	},
	"TheRightToUpdateIsMissing": {
		func(s *stage) *replica {
			s.grant("get", "watch")
			empty := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "batch"}}
			_, err := shared.Admin().CoordinationV1().Leases(s.namespace).Create(s.t.Context(), empty, metav1.CreateOptions{})
			require.NoError(s.t, err)
			return s.run(polite)
		}, exitNobody, `
State:        free
Transitions:  0

Nobody leads. A running candidate takes a free Lease within milliseconds, or seconds if it may not watch: if it stays free, none is running, or none is healthy, or none may update it.
`, "status says `free`, and the pods run", "A request failed and is tried again",
	},
	"Paused": {
		func(s *stage) *replica {
			s.grant("get", "watch", "create", "update", "patch")
			r := s.run(polite)
			r.pid("leading")
			code, _, errs := s.ask("pause", s.namespace+"/batch", "--reason=a move")
			require.Zero(s.t, code, errs)
			return r
		}, exitNobody, `
State:        paused
Until:        TIME (AGE)
Paused by:    SOMEBODY, AGE ago
Reason:       a move
Transitions:  0
Written by:   elector

The election is paused: nobody leads until TIME. To resume it before that: elector resume LEASE
`, "status says `paused`", "The election is paused",
	},
	"CrashedInALongLease": {
		func(s *stage) *replica {
			s.grant("get", "watch", "create", "update")
			r := s.run(polite, "--lease-duration=1h")
			r.pid("leading")
			r.signal(syscall.SIGKILL)
			<-r.done
			ago := `{"spec": {"renewTime": "` + time.Now().UTC().Add(-time.Minute).Format(metav1.RFC3339Micro) + `"}}` // a minute later
			_, err := shared.Admin().CoordinationV1().Leases(s.namespace).Patch(s.t.Context(), "batch", types.MergePatchType, []byte(ago), metav1.PatchOptions{})
			require.NoError(s.t, err)
			return r
		}, 0, `
State:         held
Holder:        SOMEBODY
Leads since:   TIME (AGE)
Last renewal:  AGE ago
Expires in:    AGE of AGE, unless renewed
Transitions:   0
Written by:    elector.test

The last renewal is AGE old, of AGE: the holder is late, unless it renews so rarely (the default is every AGE). If it goes on like this, another takes over in AGE.

If you know that the holder is dead, nobody has to wait for that: elector free LEASE --the-holder-is-dead
`, "status says `held` and `the holder is late`", "",
	},
	"WorkThatDrains": {
		func(s *stage) *replica {
			s.grant("get", "watch", "create", "update")
			r := s.run(`trap "" TERM; echo leading=$$; while :; do sleep 1; done`, "--grace=0")
			r.pid("leading")
			r.signal(syscall.SIGTERM)
			return r
		}, 0, `
State:         held
Holder:        SOMEBODY
Leads since:   TIME (AGE)
Last renewal:  AGE ago
Expires in:    AGE of AGE, unless renewed
Transitions:   0
Written by:    elector.test
`, "status says `held`, renewals are fresh, and nothing works", "The callback has to stop; the lease is kept until it has returned",
	},
	"TheAPIIsAway": {
		func(s *stage) *replica {
			require.NoError(s.t, cluster.WriteKubeconfig(s.kubeconfig, &rest.Config{Host: "https://127.0.0.1:1"}))
			return s.run(polite)
		}, exitFailed,
		"elector: cannot reach the API server https://127.0.0.1:1: Get \"https://127.0.0.1:1/apis/coordination.k8s.io/v1/namespaces/NAMESPACE/leases/batch\": dial tcp 127.0.0.1:1: connect: connection refused\n",
		"status says `cannot reach the API server`", "A request failed and is tried again",
	},
}

// What elector status and the log say leads to a row of OPERATIONS.md, for each cause.
func TestWhyNobodyLeads(t *testing.T) {
	page, err := os.ReadFile("../../OPERATIONS.md")
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(page), "\n## Nobody leads: why?\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for name, c := range causes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stage{t: t, namespace: namespaceOf(t), kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
			r := c.happens(s)
			r.says(c.log)
			code, out, errs := s.ask("status", s.namespace+"/batch")
			require.Equal(t, c.code, code)
			require.Equal(t, strings.TrimPrefix(c.status, "\n"), s.plain(out+errs))
			require.Contains(t, table, "\n| "+c.sees)
			for _, said := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(c.sees, -1) {
				require.Contains(t, out+errs, said[1])
			}
		})
	}
}

// plain is what status says without what differs from run to run.
func (s *stage) plain(said string) string {
	for _, r := range [][2]string{
		{`(?m)^Lease: .*\n`, ""},
		{regexp.QuoteMeta(s.namespace) + "/batch", "LEASE"},
		{regexp.QuoteMeta(s.namespace), "NAMESPACE"},
		{`\d{4}-\d\d-\d\dT[\d:]+(Z|[+-]\d\d:\d\d)`, "TIME"},
		{`(?m)^(Holder: +|Paused by: +)[^\s,]+`, "${1}SOMEBODY"},
		{`\b\d[\d.]*(ms|[smhd])([\d.]+(ms|[smhd]))*\b`, "AGE"},
	} {
		said = regexp.MustCompile(r[0]).ReplaceAllString(said, r[1])
	}
	return said
}
