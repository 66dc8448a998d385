package audit

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// Explained is a decision with how it was come to. Like a record, it holds no
// secret: who makes it sees to that.
type Explained struct {
	Decision
	// Hypothetical says that the request has not happened.
	Hypothetical bool `json:"hypothetical,omitempty"`
	// Trace is what was looked at, in order.
	Trace []Step `json:"trace"`
	// Values are what the rule read where it did not allow.
	Values []Value `json:"values,omitempty"`
	// Cause tells more where something went wrong.
	Cause string `json:"cause,omitempty"`
}

// Step is one thing that was looked at.
type Step struct {
	// What was looked at: "route", "credential", "tenant", "rule".
	What string `json:"what"`
	// Subject is which one, or where it was found; it may be empty.
	Subject string `json:"subject,omitempty"`
	// Outcome is "ok", "found", "skipped", or the reason of a refusal.
	Outcome string `json:"outcome"`
}

// Value is something that a rule read.
type Value struct {
	// Path as the rule has it: "user.groups".
	Path string `json:"path"`
	// Text is the value, for people.
	Text string `json:"text"`
}

func (e *Explained) size() int {
	n := e.Decision.size() + len(e.Cause)
	for i := range e.Trace {
		s := &e.Trace[i]
		n += int(unsafe.Sizeof(*s)) + len(s.What) + len(s.Subject) + len(s.Outcome)
	}
	for i := range e.Values {
		v := &e.Values[i]
		n += int(unsafe.Sizeof(*v)) + len(v.Path) + len(v.Text)
	}
	return n
}

// owned returns a copy of s, which mostly is one of the decision's texts.
func (e *Explained) owned(s string) string {
	for _, known := range [...]string{"", e.Route, e.Rule, e.Tenant, e.Client, e.Caller, e.Provider} {
		if s == known {
			return known
		}
	}
	return strings.Clone(truncate(s, maxField))
}

// clone returns a copy that shares nothing that changes.
func (e *Explained) clone() Explained {
	c := *e
	c.Trace, c.Values = slices.Clone(e.Trace), slices.Clone(e.Values)
	return c
}

// Ring remembers the last decisions. It is safe for concurrent use. A nil Ring
// remembers nothing.
type Ring struct {
	maxBytes int

	mu sync.Mutex
	// slots are filled in turn; oldest is the first of count that hold something.
	slots         []slot
	oldest, count int
	bytes         int
}

type slot struct {
	Explained
	size int
}

// NewRing returns a ring of so many decisions, by default 4096, that take so
// many bytes, by default 8 MiB.
func NewRing(decisions, bytes int) *Ring {
	return &Ring{slots: make([]slot, cmp.Or(decisions, 4096)), maxBytes: cmp.Or(bytes, 8<<20)}
}

// Add remembers a copy of e, whose texts it makes its own, and forgets the
// oldest as need be.
func (r *Ring) Add(e *Explained) {
	if r == nil {
		return
	}
	e.Decision.Own()
	e.Cause = truncate(e.Cause, maxPath)
	size := e.size()
	if size > r.maxBytes {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.count == len(r.slots) || r.bytes+size > r.maxBytes {
		r.forget()
	}
	s := r.at(r.count)
	s.size, s.Decision, s.Cause = size, e.Decision, e.Cause
	s.Trace, s.Values = append(s.Trace[:0], e.Trace...), append(s.Values[:0], e.Values...)
	for i := range s.Trace {
		s.Trace[i].Subject = e.owned(s.Trace[i].Subject)
	}
	r.count++
	r.bytes += size
}

// at returns the nth oldest. The caller holds mu.
func (r *Ring) at(n int) *slot { return &r.slots[(r.oldest+n)%len(r.slots)] }

func (r *Ring) forget() {
	s := r.at(0)
	r.bytes -= s.size
	clear(s.Trace)
	clear(s.Values)
	*s = slot{Explained: Explained{Trace: s.Trace[:0], Values: s.Values[:0]}}
	r.oldest = (r.oldest + 1) % len(r.slots)
	r.count--
}

// Find returns the newest decision with an ID.
func (r *Ring) Find(id string) (Explained, bool) {
	found := r.Last(1, func(e *Explained) bool { return e.ID == id })
	if len(found) == 0 {
		return Explained{}, false
	}
	return found[0], true
}

// Last returns the newest decisions that are wanted, newest first, and no more
// than limit. A nil wanted is all.
func (r *Ring) Last(limit int, wanted func(*Explained) bool) (found []Explained) {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := r.count - 1; n >= 0 && len(found) < limit; n-- {
		if e := &r.at(n).Explained; wanted == nil || wanted(e) {
			found = append(found, e.clone())
		}
	}
	return found
}
