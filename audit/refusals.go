package audit

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"
)

// maxRefusals bounds how many refusals are told apart in a minute.
const maxRefusals = 30

// refusal is what is told apart; the zero refusal stands for all that came when
// there were too many.
type refusal struct{ event, address, reason string }

// isNew reports whether a refusal gets a line, and counts it otherwise. The
// caller holds mu.
func (l *Log) isNew(e Event) bool {
	if l.refusals == nil {
		l.refusals = map[refusal]int{}
		time.AfterFunc(time.Minute, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.sum()
		})
	}
	r := refusal{e.Event, address(e.By), e.Reason}
	if _, known := l.refusals[r]; !known && len(l.refusals) >= maxRefusals {
		r = refusal{}
	}
	more, known := l.refusals[r]
	if known {
		more++
	}
	l.refusals[r] = more
	return !known
}

// sum ends the minute, with a line for each refusal that came more than once.
// The caller holds mu.
func (l *Log) sum() {
	all := l.refusals
	l.refusals = nil
	order := func(a, b refusal) int {
		return cmp.Or(cmp.Compare(a.event, b.event), cmp.Compare(a.address, b.address), cmp.Compare(a.reason, b.reason))
	}
	for _, r := range slices.SortedFunc(maps.Keys(all), order) {
		if all[r] == 0 {
			continue
		}
		e := Event{
			Event: r.event, By: r.address, Outcome: Refused, Reason: r.reason,
			Details: map[string]string{"more": strconv.Itoa(all[r])},
		}
		if r == (refusal{}) {
			e.Event, e.Reason = "refused", "too many different refusals in a minute"
		}
		l.write(e.clip())
	}
}

// address is by without the port, which is another with each connection.
func address(by string) string {
	if host, _, err := net.SplitHostPort(by); err == nil {
		return host
	}
	return by
}
