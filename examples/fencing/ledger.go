package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	_ "modernc.org/sqlite" // SQLite in Go: no C compiler, no library
)

// errFenced is a write, or a term, that came too late.
var errFenced = errors.New("fenced: the database has seen the token of a newer term")

// A ledger is the database. It holds one row: how far the job is, and the highest token that it was given.
type ledger struct {
	db       *sql.DB
	unfenced bool // for the play: forget the condition
}

// The token is in the row that it guards, so that one statement compares and writes. A token is a resourceVersion: to
// the API server that is etcd's revision, an int64, so that every token fits into SQLite's (and PostgreSQL's) signed 64
// bits, and compares there as it should. database/sql refuses a uint64 that does not fit, rather than make it negative.
const schema = `
CREATE TABLE IF NOT EXISTS job (
	name  TEXT    PRIMARY KEY,
	done  INTEGER NOT NULL,                   -- batches
	token INTEGER NOT NULL CHECK (token > 0)  -- the highest seen
) STRICT, WITHOUT ROWID`

const jobName = "batches"

// openLedger opens the database, and makes it where there is none.
func openLedger(ctx context.Context, path string) (*ledger, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// Readers and the writer do not wait for each other with the write-ahead log, and two writers wait for each other
	// instead of failing at once. Synchronous is left at FULL: after a power failure the token must be what it was.
	pragmas := url.Values{"_pragma": {"busy_timeout(2000)", "journal_mode(WAL)"}}
	dsn := url.URL{Scheme: "file", Path: filepath.ToSlash(abs), RawQuery: pragmas.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // one writer in this process; it has nobody to wait for
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("open the database %s: %w", path, err), db.Close())
	}
	return &ledger{db: db}, nil
}

func (l *ledger) close() { _ = l.db.Close() }

// raise writes the token of a new term, and nothing else. A smaller one is refused from then on.
func (l *ledger) raise(ctx context.Context, token uint64) error {
	return l.oneRow(l.db.ExecContext(ctx, `
		INSERT INTO job (name, done, token) VALUES (?1, 0, ?2)
		ON CONFLICT (name) DO UPDATE SET token = excluded.token WHERE token <= excluded.token`,
		jobName, token))
}

// write writes that a batch is done, if no newer term has begun. The comparison and the write are one statement, and so
// one transaction: nothing can come between them, a suspension neither. The same token once more is the same term.
func (l *ledger) write(ctx context.Context, token uint64, batch int64) error {
	if l.unfenced {
		return l.oneRow(l.db.ExecContext(ctx, `UPDATE job SET done = ?2 WHERE name = ?1`, jobName, batch))
	}
	return l.oneRow(l.db.ExecContext(ctx, `
		UPDATE job SET done = ?2, token = ?3 WHERE name = ?1 AND token <= ?3`,
		jobName, batch, token))
}

// oneRow is the answer of the database: a statement that found no row to change was refused.
func (l *ledger) oneRow(result sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return errFenced
}

// done is the last batch that was done. A leader reads it after raise: before, an earlier leader could still change it.
func (l *ledger) done(ctx context.Context) (batch int64, err error) {
	batch, _, err = l.row(ctx)
	return batch, err
}

func (l *ledger) row(ctx context.Context) (done int64, token uint64, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT done, token FROM job WHERE name = ?1`, jobName).Scan(&done, &token)
	return done, token, err
}
