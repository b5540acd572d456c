package fleet

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"
)

// A Line is one line of a replica's log.
type Line struct {
	Replica *Replica
	At      time.Time // as klog wrote it, to the microsecond; of other lines, when they were read
	Text    string    // without klog's header
}

// Is reports whether the line's message is one of these, with klog's quotes around it.
func (l Line) Is(messages ...string) bool {
	for _, m := range messages {
		if strings.HasPrefix(l.Text, `"`+m+`"`) {
			return true
		}
	}
	return false
}

// Value returns the value of a key of the line, "" if it has none.
func (l Line) Value(key string) string {
	m := regexp.MustCompile(`(?:^| )` + regexp.QuoteMeta(key) + `=("(?:[^"\\]|\\.)*"|\S+)`).FindStringSubmatch(l.Text)
	if m == nil {
		return ""
	}
	return strings.Trim(m[1], `"`)
}

// lineWriter takes the output of a process apart into lines.
type lineWriter struct {
	replica *Replica
	mu      sync.Mutex // guards rest
	rest    []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		w.replica.fleet.add(parse(w.replica, string(line)))
		w.rest = bytes.Clone(rest)
	}
}

var klogHeader = regexp.MustCompile(`^[IWEF](\d{4} \d\d:\d\d:\d\d\.\d{6}) +\d+ [^ ]+\] `)

func parse(r *Replica, line string) Line {
	m := klogHeader.FindStringSubmatch(line)
	if m == nil {
		return Line{Replica: r, At: time.Now(), Text: line}
	}
	at, err := time.ParseInLocation("20060102 15:04:05.000000", fmt.Sprint(time.Now().Year(), m[1]), time.Local)
	if err != nil {
		at = time.Now()
	}
	return Line{Replica: r, At: at, Text: line[len(m[0]):]}
}

func (f *Fleet) add(l Line) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, l)
	close(f.changed)
	f.changed = make(chan struct{})
}

// Lines returns all lines so far, in the order in which they were read.
func (f *Fleet) Lines() []Line {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lines[:len(f.lines):len(f.lines)]
}

// Log is the log of a replica so far, or with nil that of all.
func (f *Fleet) Log(r *Replica) string {
	var b strings.Builder
	for _, l := range f.Lines() {
		if r == nil || l.Replica == r {
			fmt.Fprintf(&b, "%s %s %s\n", l.At.Format("15:04:05.000"), l.Replica.Name, l.Text)
		}
	}
	return b.String()
}

// Await returns the first line that match accepts, from the line numbered by since on, and the number of the next.
// What is for its error.
func (f *Fleet) Await(ctx context.Context, what string, since int, match func(Line) bool) (Line, int, error) {
	for next := since; ; {
		f.mu.Lock()
		lines, changed := f.lines, f.changed
		f.mu.Unlock()
		for ; next < len(lines); next++ {
			if match(lines[next]) {
				return lines[next], next + 1, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Line{}, next, fmt.Errorf("fleet: waiting for %s: %w", what, ctx.Err())
		}
	}
}
