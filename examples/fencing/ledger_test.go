package main

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newLedger(t *testing.T, path string) *ledger {
	t.Helper()
	l, err := openLedger(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(l.close)
	return l
}

func requireRow(t *testing.T, l *ledger, done int64, token uint64) {
	t.Helper()
	d, tok, err := l.row(t.Context())
	require.NoError(t, err)
	require.Equal(t, done, d, "batches done")
	require.Equal(t, token, tok, "token")
}

func TestTheTokenDecidesWhoMayWrite(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "a file with? odd#characters%"))
	raise := func(token uint64) func() error { return func() error { return l.raise(t.Context(), token) } }
	write := func(token uint64, batch int64) func() error {
		return func() error { return l.write(t.Context(), token, batch) }
	}
	for _, step := range []struct {
		what  string
		do    func() error
		err   error
		done  int64
		token uint64
	}{
		{"the first term raises", raise(1000), nil, 0, 1000},
		{"and writes", write(1000, 1), nil, 1, 1000},
		{"and raises again: it is the same term", raise(1000), nil, 1, 1000},
		{"and writes again", write(1000, 2), nil, 2, 1000},
		{"the second term raises", raise(2000), nil, 2, 2000},
		{"the first may not write, though the second has not", write(1000, 3), errFenced, 2, 2000},
		{"nor raise", raise(1999), errFenced, 2, 2000},
		{"the second writes", write(2000, 3), nil, 3, 2000},
		{"a third that has not raised writes, and is known from then on", write(3000, 4), nil, 4, 3000},
		{"so the second may not", write(2000, 5), errFenced, 4, 3000},
	} {
		require.ErrorIs(t, step.do(), step.err, step.what)
		requireRow(t, l, step.done, step.token)
	}
}

func TestTokensAreComparedAsNumbersUpToTheLargest(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "db"))
	require.NoError(t, l.raise(t.Context(), 999))
	require.NoError(t, l.raise(t.Context(), 1000), "not as text")
	require.NoError(t, l.raise(t.Context(), math.MaxInt64))
	requireRow(t, l, 0, math.MaxInt64)
	require.ErrorIs(t, l.write(t.Context(), math.MaxInt64-1, 1), errFenced)
	require.Error(t, l.raise(t.Context(), math.MaxInt64+1), "it would be negative")
	require.Error(t, l.write(t.Context(), math.MaxUint64, 1), "it would be negative")
	requireRow(t, l, 0, math.MaxInt64)
}

func TestATermWithoutATokenMayNotWrite(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "db"))
	require.Error(t, l.raise(t.Context(), 0))
	require.Error(t, l.write(t.Context(), 0, 1))
}

func TestAWriteWithoutARaiseFindsNoRow(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "db"))
	require.ErrorIs(t, l.write(t.Context(), 1000, 1), errFenced)
}

// Two processes write as fast as they can, and one raises the token: after that, none of the other's writes is there.
func TestNoWriteOfAnOldTermFollowsARaise(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	old, next := newLedger(t, path), newLedger(t, path)
	for round := range uint64(20) {
		first, second := 1000+10*round, 1005+10*round
		require.NoError(t, old.raise(t.Context(), first))
		var writing sync.WaitGroup
		begun := make(chan struct{})
		writing.Go(func() { writeUntilFenced(t, t.Context(), old, first, begun) })
		<-begun
		err := next.raise(t.Context(), second)
		for err != nil && strings.Contains(err.Error(), "SQLITE_BUSY") { // the other writes without a pause, and SQLite is not fair
			err = next.raise(t.Context(), second)
		}
		require.NoError(t, err)
		read, token, err := next.row(t.Context())
		require.NoError(t, err)
		require.Equal(t, second, token)
		writing.Wait() // the old leader has tried again by then, and was refused
		require.False(t, t.Failed())
		requireRow(t, next, read, second)
	}
}

// writeUntilFenced writes as the leader of a term for as long as it may.
func writeUntilFenced(t *testing.T, ctx context.Context, l *ledger, token uint64, begun chan<- struct{}) {
	tell := sync.OnceFunc(func() { close(begun) })
	defer tell()
	for batch, start := int64(1), time.Now(); time.Since(start) < 10*time.Second; batch++ {
		if err := l.write(ctx, token, batch); err != nil {
			assert.ErrorIs(t, err, errFenced)
			assert.Greater(t, batch, int64(3), "refused before another has raised the token")
			return
		}
		if batch == 3 {
			tell()
		}
	}
	t.Error("never refused")
}

func TestTheDatabaseIsSetUpAsItSays(t *testing.T) {
	t.Parallel()
	l := newLedger(t, filepath.Join(t.TempDir(), "db"))
	for pragma, want := range map[string]string{"journal_mode": "wal", "busy_timeout": "2000", "synchronous": "2"} {
		var got string
		require.NoError(t, l.db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
		require.Equal(t, want, got, pragma)
	}
}
