package extauthz

import (
	"time"

	"github.com/chancery-mesh/chancery/audit"
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
	// expression stands or, once it allowed, where the rule of its policy in Rego
	// does, as far as that is known; empty if neither was reached.
	Policy, Route, Rule string
	// Revision of the policy.
	Revision string
	// RequestID is that of the request, and Transaction the `txn` of its Passport,
	// empty if there is none.
	RequestID, Transaction string
	Method                 string
	// Path is without query, Pattern the route's.
	Path, Pattern string
	// IP is the client's address, Caller the SPIFFE ID of the peer.
	IP, Caller string
	// Shown are the kinds of credentials that came with the request, or that its
	// Passport was minted for.
	Shown credential.Kind
	// Identity that was found out, nil if there is none. Source vouches for its
	// user, as Passports name it; Plan is its client's.
	Identity     *credential.Identity
	Source, Plan string
	// Reason why the check ended so, and the HTTP status that it ended with.
	Reason string
	Status int
	// Values are what the rule read where it did not allow.
	Values []policy.Value
	// Cause tells more where something went wrong.
	Cause error
	// Recording is how the policy wants it recorded.
	Recording Recording

	steps [maxSteps]Step
	taken int
}

// Recording says how the decisions of a policy are recorded. The zero value is
// the default.
type Recording struct {
	Mode      audit.Mode
	Redaction audit.Redaction
}

// Allowed reports whether the request was let in.
func (r *Record) Allowed() bool { return r.Reason == allowed.reason }

// Steps are what was looked at, in order.
func (r *Record) Steps() []Step { return r.steps[:r.taken] }

// maxSteps is more than any check takes.
const maxSteps = 16

// Step is one thing that was looked at.
type Step = audit.Step

// Outcomes of steps that do not refuse.
const (
	outcomeOK      = "ok"
	outcomeFound   = "found"
	outcomeSkipped = "skipped"
)

// note adds a step.
func (r *Record) note(what, subject, outcome string) {
	if r.taken < maxSteps {
		r.steps[r.taken] = Step{What: what, Subject: subject, Outcome: outcome}
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
