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

func TestFileSystemsWhoseLocksAreNotThisKernelsAreRefused(t *testing.T) {
	for kind, name := range map[uint32]string{ // as in statfs(2)
		0x6969: "NFS", 0xff534d42: "CIFS", 0xfe534d42: "SMB2", 0x517b: "SMB", 0x01021997: "9p", 0x65735546: "FUSE",
	} {
		_, err := keeper(kind)
		assert.ErrorContains(t, err, name)
	}
	for _, kind := range []uint32{0xef53, 0x58465342, 0x9123683e, 0x794c7630} { // ext4, XFS, Btrfs, overlay
		kernel, err := keeper(kind)
		require.NoError(t, err)
		assert.Len(t, kernel, len("@00000000-0000-0000-0000-000000000000"), "a disk can be attached to another machine")
	}
	kernel, err := keeper(tmpfs)
	require.NoError(t, err)
	assert.Empty(t, kernel, "memory is this kernel's")
}

func TestAFileFromAnotherKernelSaysNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f := openAt(t, path)
	if kernel, err := kernelOf(f.file); err != nil || kernel == "" {
		t.Skip("the directory for temporary files is in memory")
	}
	require.NoError(t, f.Store("dead"))
	require.NoError(t, f.Close())
	before := bootID
	defer func() { bootID = before }()
	bootID = filepath.Join(t.TempDir(), "boot_id")
	_, err := Open(path)
	require.ErrorIs(t, err, os.ErrNotExist, "which kernel this is cannot be told")
	require.NoError(t, os.WriteFile(bootID, []byte("b39b0f50-68e4-4b4b-a0e3-6e4d2a4f1c11\n"), 0o600))
	got := ""
	require.ErrorContains(t, openAt(t, path).Load(&got), "before the machine was started")
	require.Empty(t, got)
}

// As /dev/shm can be.
func TestOnAFullFileSystemWhatFitsIsKeptAndWhatDoesNotSaysNothing(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8k"); err != nil {
		t.Skip("no right to mount:", err)
	}
	defer func() { require.NoError(t, syscall.Unmount(dir, 0)) }()
	path := filepath.Join(dir, "f")
	f, err := Open(path)
	require.NoError(t, err)
	require.NoError(t, f.Store("first"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), make([]byte, 4096), 0o600))
	require.Error(t, os.WriteFile(filepath.Join(dir, "more"), []byte{1}, 0o600), "it is full")
	require.NoError(t, f.Store("second"), "the place it has is its own")
	require.NoError(t, f.Close())
	f, err = Open(path)
	require.NoError(t, err)
	got := ""
	require.NoError(t, f.Load(&got))
	require.Equal(t, "second", got)
	require.ErrorIs(t, f.Store(strings.Repeat("x", 5000)), syscall.ENOSPC)
	require.NoError(t, f.Close())
	f, err = Open(path)
	require.NoError(t, err)
	defer f.Close()
	got = ""
	require.NoError(t, f.Load(&got))
	require.Empty(t, got, "what it said before may not be so any more")
}
