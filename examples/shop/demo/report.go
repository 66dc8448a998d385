package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// The widths of the columns.
const sendsWidth, expectsWidth = 62, 42

// report prints a line for each scene and counts.
type report struct {
	out            io.Writer
	good, bad, end string
	passed, failed int
}

func newReport(out io.Writer, colour bool) *report {
	r := &report{out: out}
	if colour {
		r.good, r.bad, r.end = "\x1b[32m", "\x1b[31m", "\x1b[0m"
	}
	return r
}

func (r *report) chapter(title string) { fmt.Fprintf(r.out, "%s\n", title) }

// line tells one scene; err says how what came differs from what was expected.
func (r *report) line(sends, expects, came string, err error) {
	mark := r.good + "✓" + r.end
	if err == nil {
		r.passed++
	} else {
		r.failed++
		mark = r.bad + "✗" + r.end
		came = strings.TrimPrefix(came+": ", ": ") + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	fmt.Fprintf(r.out, "  %s %s %s %s\n", mark, pad(sends, sendsWidth), pad(expects, expectsWidth), came)
}

// summary prints the last line.
func (r *report) summary() error {
	fmt.Fprintf(r.out, "%d passed, %d failed\n", r.passed, r.failed)
	if r.failed > 0 {
		return fmt.Errorf("%d of %d scenes failed", r.failed, r.passed+r.failed)
	}
	return nil
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}
