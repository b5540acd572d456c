//go:build unix

package lockfile

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func openAt(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestTheLockKeepsOutWhoComesSecondAndPassesOnWhatWasStored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	first := openAt(t, path)
	require.NoError(t, first.Store([]string{"a", "b"}))
	_, err := Open(path)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, first.Close())
	second := openAt(t, path)
	var got []string
	require.NoError(t, second.Load(&got))
	assert.Equal(t, []string{"a", "b"}, got)
	assert.True(t, second.IsAt(path))
	require.NoError(t, os.Rename(path, path+"2"))
	assert.False(t, second.IsAt(path))
}

func TestALockThatKeepsNobodyOutIsNone(t *testing.T) {
	defer func() { lock = flock }()
	lock = func(*os.File) error { return nil }
	_, err := Open(filepath.Join(t.TempDir(), "f"))
	require.ErrorIs(t, err, errNoLock)
	lock = func(*os.File) error { return syscall.ENOLCK }
	_, err = Open(filepath.Join(t.TempDir(), "f"))
	require.ErrorIs(t, err, syscall.ENOLCK)
}

func TestAFileThatIsReplacedWhileItIsLockedIsNotLocked(t *testing.T) {
	defer func() { lock = flock }()
	path := filepath.Join(t.TempDir(), "f")
	lock = func(f *os.File) error {
		lock = flock
		require.NoError(t, os.Rename(path, path+".old"))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		return flock(f)
	}
	_, err := Open(path)
	require.ErrorIs(t, err, errReplaced)
}

func TestWhatWasNotWrittenIntoThisFileSaysNothing(t *testing.T) {
	dir := t.TempDir()
	original := openAt(t, filepath.Join(dir, "original"))
	require.NoError(t, original.Store("dead"))
	whole, err := os.ReadFile(filepath.Join(dir, "original"))
	require.NoError(t, err)
	for what, text := range map[string]string{
		"a copy":                    string(whole),
		"half of it":                string(whole[:len(whole)/2]),
		"another format":            `["dead"]`,
		"not of the asked-for kind": `{"state":5}`,
	} {
		path := filepath.Join(dir, strings.ReplaceAll(what, " ", "-"))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		got := ""
		require.Error(t, openAt(t, path).Load(&got), what)
		require.Empty(t, got, what)
	}
}

// Whoever else could write it could say that anybody is dead.
func TestTheFileMustBeThisUsersAlone(t *testing.T) {
	for what, spoil := range map[string]func(path string) error{
		"another user's": func(path string) error {
			if os.Geteuid() != 0 {
				return os.Chmod(path, 0) // only root can give it away
			}
			return os.Chown(path, 12345, -1)
		},
		"a link to another": func(path string) error {
			if err := os.Rename(path, path+"2"); err != nil {
				return err
			}
			return os.Symlink(path+"2", path)
		},
		"a pipe": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return syscall.Mkfifo(path, 0o600)
		},
	} {
		path := filepath.Join(t.TempDir(), "f")
		f := openAt(t, path)
		require.NoError(t, f.Store("dead"))
		require.NoError(t, f.Close())
		require.NoError(t, spoil(path))
		_, err := Open(path)
		require.Error(t, err, what)
		require.NotErrorIs(t, err, ErrLocked, what)
	}
}

func TestAFileThatOthersCouldWriteIsReplaced(t *testing.T) {
	for _, mode := range []os.FileMode{0o620, 0o602, 0o660} {
		path := filepath.Join(t.TempDir(), "f")
		f := openAt(t, path)
		require.NoError(t, f.Store("dead"))
		require.NoError(t, f.Close())
		require.NoError(t, os.Chmod(path, mode))
		got := ""
		again := openAt(t, path)
		require.NoError(t, again.Load(&got))
		require.Empty(t, got)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o022)
		require.True(t, again.IsAt(path))
	}
}
