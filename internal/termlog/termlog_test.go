//go:build unix

package termlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	uid  = "0a1b2c3d-1234-5678-9abc-0123456789ab"
	file = "/var/lib/kubelet/pods/" + uid + "/containers/main/1a2b3c4d"
)

// proc makes a /proc: the mounts by root and mount point, and the mount namespaces of this process and of the first.
func proc(t *testing.T, mounts [][2]string, self, first string) string {
	dir := t.TempDir()
	var lines strings.Builder
	for i, m := range mounts {
		fmt.Fprintf(&lines, "%d 27 254:0 %s %s rw,relatime - ext4 /dev/vda rw\n", i, m[0], m[1])
	}
	for pid, ns := range map[string]string{"self": self, "1": first} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, pid, "ns"), 0o700))
		if ns != "" {
			require.NoError(t, os.Symlink(ns, filepath.Join(dir, pid, "ns/mnt")))
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "self/mountinfo"), []byte(lines.String()), 0o600))
	return dir
}

func TestTheTerminationLogIsFoundByItsMountWhereThePIDNamespaceIsTheContainersOwn(t *testing.T) {
	root := [2]string{"/", "/"}
	volume := [2]string{"/var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~empty-dir/tmp", "/tmp"}
	for _, c := range []struct {
		what        string
		mounts      [][2]string
		self, first string
		path, err   string
	}{
		{"in a pod", [][2]string{root, volume, {file, "/dev/termination-log"}}, "mnt:[1]", "mnt:[1]", "/dev/termination-log", ""},
		{"under another path", [][2]string{root, {file, "/end"}}, "mnt:[1]", "mnt:[1]", "/end", ""},
		{"the kubelet's directory is a disk of its own", [][2]string{{strings.TrimPrefix(file, "/var/lib/kubelet"), "/dev/termination-log"}}, "mnt:[1]", "mnt:[1]", "/dev/termination-log", ""},
		{"a static pod", [][2]string{{"/pods/" + strings.ReplaceAll(uid, "-", "") + "/containers/main/1a2b3c4d", "/x"}}, "mnt:[1]", "mnt:[1]", "/x", ""},
		{"not in a pod", [][2]string{root}, "mnt:[1]", "mnt:[1]", "", "no termination log"},
		{"a volume in its place", [][2]string{root, {volume[0], "/dev/termination-log"}}, "mnt:[1]", "mnt:[1]", "", "no termination log"},
		{"two", [][2]string{{file, "/a"}, {file, "/b"}}, "mnt:[1]", "mnt:[1]", "", "two"},
		{"shareProcessNamespace or hostPID", [][2]string{{file, "/a"}}, "mnt:[1]", "mnt:[2]", "", "shares its PID namespace"},
		{"the first process is another user's", [][2]string{{file, "/a"}}, "mnt:[1]", "", "", "cannot be found out"},
	} {
		path, err := find(proc(t, c.mounts, c.self, c.first))
		require.Equal(t, c.path, path, c.what)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, c.what)
		} else {
			require.NoError(t, err, c.what)
		}
	}
	_, err := find(t.TempDir())
	require.Error(t, err, "where there is no /proc")
}

func TestOneFileHasTheNotesOfAllLeasesAsFarAsTheyFit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("old ", 50)), 0o600))
	before := Path
	defer func() { Path, notes.by = before, map[string]string{} }()
	Path = func() (string, error) { return path, nil }
	read := func() []string {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.LessOrEqual(t, len(data), Limit)
		text, ok := strings.CutPrefix(string(data), heading)
		require.True(t, ok)
		return strings.Fields(text)
	}
	require.NoError(t, Leave("b", "2 3"))
	require.NoError(t, Leave("a", "1"))
	assert.Equal(t, []string{"1", "2", "3"}, read())
	require.NoError(t, Leave("b", "4"))
	assert.Equal(t, []string{"1", "4"}, read())

	fit := 0
	for ; Leave(fmt.Sprint("k", fit), strings.Repeat("x", 22)) == nil; fit++ {
	}
	assert.Greater(t, fit, 170)
	kept := read()
	assert.Len(t, kept, 2+fit)
	require.Error(t, Leave("a", strings.Repeat("y", 60)))
	require.NoError(t, Leave("b", "5"))
	assert.Equal(t, []string{"1", "5"}, read()[:2], "what does not fit changes nothing")
}

func TestWithoutATerminationLogNothingIsWritten(t *testing.T) {
	before := Path
	defer func() { Path = before }()
	Path = func() (string, error) { return filepath.Join(t.TempDir(), "gone"), nil }
	require.ErrorIs(t, Leave("a", "1"), os.ErrNotExist)
	notes.by = map[string]string{}
}
