// Package audit keeps who did what, in lines of JSON that hold no secret.
//
// A [DecisionLog] has one for each authorization decision: a [Decision] of a
// fixed schema, without what a [Redactor] leaves out, to a [File] that rotates or
// a [Stream]. Either nobody waits for it and what is lost is counted, or nobody
// goes on before it is on disk. A [Ring] remembers the last ones, with how they
// were come to.
//
// A [Log] has one for each event that an operator or an agent causes, appended
// to a file that its owner alone can read, and told to the log. Events say no
// secrets; that is for who records them to see to. A line is written before [Log.Record] returns, so it is there also when the
// process dies right after. What is refused can be caused by anybody, so of the
// same event from the same address, for the same reason, a minute has one line,
// and then one with how many more there were. The file only grows: rotate it by copying and truncating.
//
// The package imports nothing of the project but internal.
package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// Outcome is how an event ended.
type Outcome string

// The outcomes of events.
const (
	Done    Outcome = "done"
	Refused Outcome = "refused"
	Failed  Outcome = "failed"
)

// Event is one line.
type Event struct {
	// Time is now, if it is zero.
	Time time.Time `json:"time"`
	// Event is what happened: "join token created".
	Event string `json:"event"`
	// Subject is whom it is about: "service/orders", or a serial number.
	Subject string `json:"subject"`
	// By is who did it: an operator, or the address of an agent.
	By      string  `json:"by,omitempty"`
	Outcome Outcome `json:"outcome"`
	// Reason says exactly why, also where who asked is not told.
	Reason string `json:"reason,omitempty"`
	// Details are further facts.
	Details map[string]string `json:"details,omitempty"`
}

// Log takes events. It is safe for concurrent use. A nil Log drops them.
type Log struct {
	log *slog.Logger

	mu   sync.Mutex
	file *os.File
	// refusals of this minute that have no line of their own; nil if there are
	// none at all.
	refusals map[refusal]int
}

// Open returns a Log that appends to the file at path, which it makes if need
// be, and tells log, which may be nil.
func Open(path string, log *slog.Logger) (*Log, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0) {
		err = fmt.Errorf("%s must be a file with mode 0600, not %v", path, info.Mode())
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return &Log{log: cmp.Or(log, slog.New(slog.DiscardHandler)).With("component", "audit"), file: f}, nil
}

// Record writes an event. That it cannot be written is an error in the log and
// stops nobody.
func (l *Log) Record(e Event) {
	if l == nil {
		return
	}
	e = e.clip()
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Outcome != Refused || l.isNew(e) {
		l.write(e)
	}
}

// write writes one line at once, so that those of others stay whole. The caller
// holds mu.
func (l *Log) write(e Event) {
	l.tell(e)
	line, err := json.Marshal(e)
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil {
		l.log.Error("audit event not written", "event", e.Event, "subject", e.Subject, "err", err)
	}
}

func (l *Log) tell(e Event) {
	level := slog.LevelInfo
	if e.Outcome != Done {
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, "audit", "event", e.Event, "subject", e.Subject,
		"by", e.By, "outcome", string(e.Outcome), "reason", e.Reason)
}

// Close writes what it has counted, and closes the file.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum()
	return l.file.Close()
}

// maxText bounds what strangers can make a line hold.
const maxText = 512

// clip returns e with its time, and without what is too long.
func (e Event) clip() Event {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	for _, text := range []*string{&e.Subject, &e.By, &e.Reason} {
		*text = clip(*text)
	}
	details := make(map[string]string, len(e.Details))
	for k, v := range e.Details {
		details[k] = clip(v)
	}
	e.Details = details
	return e
}

func clip(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}
