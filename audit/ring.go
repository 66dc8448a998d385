package audit

import (
	"cmp"
	"sync"
)

// Explained is a decision with how it was come to.
type Explained struct {
	Decision
	Trace []Step `json:"trace"`
}

// Step is one thing that a decision looked at. Like a record, it holds no
// secret: who makes it sees to that.
type Step struct {
	// Check is what was looked at: "route", "access token", "caller", "rule".
	Check string `json:"check"`
	// Passed is how it went.
	Passed bool `json:"passed"`
	// Where says where it was found or stands written: "header authorization",
	// "orders.yaml:12:12".
	Where string `json:"where,omitempty"`
	// Why says why it went so.
	Why string `json:"why,omitempty"`
	// Values are what it was decided by, redacted.
	Values []Value `json:"values,omitempty"`
}

// Value is what an attribute was.
type Value struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (e *Explained) size() int {
	n := e.Decision.size()
	for i := range e.Trace {
		s := &e.Trace[i]
		n += 96 + len(s.Check) + len(s.Where) + len(s.Why)
		for _, v := range s.Values {
			n += 32 + len(v.Name) + len(v.Value)
		}
	}
	return n
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

// Add remembers e, which must not be changed after it, and forgets the oldest as
// need be.
func (r *Ring) Add(e *Explained) {
	if r == nil {
		return
	}
	s := slot{Explained: *e}
	s.clip()
	if s.size = s.Explained.size(); s.size > r.maxBytes {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.count == len(r.slots) || r.bytes+s.size > r.maxBytes {
		r.forget()
	}
	*r.at(r.count) = s
	r.count++
	r.bytes += s.size
}

// at returns the nth oldest. The caller holds mu.
func (r *Ring) at(n int) *slot { return &r.slots[(r.oldest+n)%len(r.slots)] }

func (r *Ring) forget() {
	s := r.at(0)
	r.bytes -= s.size
	*s = slot{}
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
			found = append(found, *e)
		}
	}
	return found
}
