package extauthz

import (
	"time"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/policy"
)

// Record is everything that one check came to. It holds no credential, and
// nothing of the request but what it names. It must not be changed.
type Record struct {
	// ID is unique, and told to the client where it is refused.
	ID   string
	Time time.Time
	// Took is how long the decision took.
	Took time.Duration
	// Policy, Route and Rule say what decided: Rule is where the route's
	// expression stands, empty if it was not reached.
	Policy, Route, Rule string
	// Revision of the policy.
	Revision string
	// RequestID is that of the call chain, the `txn` of its Passport.
	RequestID string
	Method    string
	// Path is without query.
	Path string
	// IP is the client's address, Caller the SPIFFE ID of the peer.
	IP, Caller string
	// Identity that was found out, nil if there is none. Plan is its client's.
	Identity *credential.Identity
	Plan     string
	// Reason why the check ended so, and the HTTP status that it ended with.
	Reason string
	Status int
	// Values are what the rule read where it did not allow.
	Values []policy.Value
	// Cause tells more where something went wrong.
	Cause error

	steps [maxSteps]Step
	taken int
}

// Allowed reports whether the request was let in.
func (r *Record) Allowed() bool { return r.Reason == allowed.reason }

// Steps are what was looked at, in order.
func (r *Record) Steps() []Step { return r.steps[:r.taken] }

// maxSteps is more than any check takes.
const maxSteps = 16

// Step is one thing that was looked at.
type Step struct {
	// What was looked at: "route", "credential", "tenant", "rule".
	What string
	// Subject is which one, or where it was found; it may be empty.
	Subject string
	// Outcome is "ok", "found", "skipped", or the reason of a refusal.
	Outcome string
}

// Outcomes of steps that do not refuse.
const (
	outcomeOK      = "ok"
	outcomeFound   = "found"
	outcomeSkipped = "skipped"
)

// note adds a step.
func (r *Record) note(what, subject, outcome string) {
	if r.taken < maxSteps {
		r.steps[r.taken] = Step{what, subject, outcome}
		r.taken++
	}
}

// conclude adds the step that v ends, if it is a refusal, and returns v.
func (r *Record) conclude(what, subject string, v verdict) verdict {
	if v == allowed {
		r.note(what, subject, outcomeOK)
	} else {
		r.note(what, subject, v.reason)
	}
	return v
}
