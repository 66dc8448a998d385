// Package decisions records what a policy decision point decides: in the
// decision log, as its policy wants it, and for a while in memory, to be
// explained. What it keeps is redacted before anything else happens to it.
//
//	keeper := decisions.New(decisions.Config{Log: log, Ring: audit.NewRing(0, 0), Key: key})
//	server, err := extauthz.New(extauthz.Config{Record: keeper.Record, …})
package decisions

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
)

// Config says where decisions go.
type Config struct {
	// Log is nil where there is none: policies that require one are then answered
	// with 503.
	Log *audit.DecisionLog
	// Ring is nil where nobody asks.
	Ring *audit.Ring
	// Key is what is hashed with, 32 bytes.
	Key []byte
}

// Keeper keeps decisions. It is safe for concurrent use.
type Keeper struct {
	config Config
	// redactor is that of the last decision: they hardly ever change.
	redactor atomic.Pointer[redactor]
}

type redactor struct {
	*audit.Redactor
	redaction audit.Redaction
	keepsText bool
}

// New returns a keeper.
func New(c Config) *Keeper { return &Keeper{config: c} }

// Record is for [extauthz.Config]. An error says that the decision could not be
// recorded as it must be.
func (k *Keeper) Record(r *extauthz.Record) error {
	e, err := k.Explain(r)
	return k.keep(&e, r.Recording.Mode, err)
}

// RecordAs records a decision of something else, as a policy would want it. It
// changes e.
func (k *Keeper) RecordAs(e *audit.Explained, how extauthz.Recording) error {
	return k.keep(e, how.Mode, k.Redact(e, how.Redaction))
}

// Redact leaves in e what may be told.
func (k *Keeper) Redact(e *audit.Explained, r audit.Redaction) error {
	by, err := k.redactorOf(r)
	if err != nil {
		*e = audit.Explained{Decision: audit.Decision{Time: e.Time, ID: e.ID, Policy: e.Policy}}
		return err
	}
	by.Apply(&e.Decision)
	for i := range e.Values {
		e.Values[i].Text = by.value(e, e.Values[i])
	}
	if !by.keepsText {
		e.Trace, e.Cause = by.trace(e), ""
	}
	return nil
}

// keep logs and remembers a decision, unless err says that it is not redacted.
func (k *Keeper) keep(e *audit.Explained, mode audit.Mode, err error) error {
	if err == nil {
		err = k.log(&e.Decision, mode)
	}
	if err != nil {
		e.Decision.Decision, e.Status, e.Reason = audit.Deny, 503, audit.ReasonUnavailable
	}
	k.config.Ring.Add(e)
	return err
}

func (k *Keeper) log(d *audit.Decision, mode audit.Mode) error {
	switch {
	case mode == audit.Off:
		return nil
	case mode != audit.BestEffort && k.config.Log == nil:
		return audit.ErrUnavailable
	case mode != audit.BestEffort:
		// The log bounds how long that takes.
		return k.config.Log.RecordDurably(context.Background(), d)
	case k.config.Log != nil:
		k.config.Log.Record(d)
	}
	return nil
}

// Explain returns what may be told of a decision.
func (k *Keeper) Explain(r *extauthz.Record) (audit.Explained, error) {
	e := audit.Explained{Decision: decisionOf(r), Trace: r.Steps()}
	for _, v := range r.Values {
		e.Values = append(e.Values, audit.Value(v))
	}
	if r.Cause != nil {
		e.Cause = r.Cause.Error()
	}
	return e, k.Redact(&e, r.Recording.Redaction)
}

func decisionOf(r *extauthz.Record) audit.Decision {
	d := audit.Decision{
		Time: r.Time, ID: r.ID, Decision: audit.Deny, Status: r.Status, Reason: r.Reason,
		Policy: r.Policy, Revision: r.Revision, Route: r.Route, Rule: r.Rule, Method: r.Method, Path: r.Path, Pattern: r.Pattern,
		Credentials: r.Shown.Names(), Caller: r.Caller, IP: r.IP, Transaction: r.Transaction, RequestID: r.RequestID, Microseconds: r.Took.Microseconds(),
	}
	if r.Allowed() {
		d.Decision = audit.Allow
	}
	if id := r.Identity; id != nil {
		d.User, d.Tenant, d.Client, d.Provider = id.User, id.Tenant, id.Client, r.Source
	}
	return d
}

// redactorOf returns what applies a redaction.
func (k *Keeper) redactorOf(r audit.Redaction) (*redactor, error) {
	if last := k.redactor.Load(); last != nil && last.redaction == r {
		return last, nil
	}
	made, err := audit.NewRedactor(r, k.config.Key)
	if err != nil {
		return nil, err
	}
	next := &redactor{made, r, r.KeepsText()}
	k.redactor.Store(next)
	return next, nil
}

// trace returns the steps of e, without subjects that may tell of people.
func (r *redactor) trace(e *audit.Explained) []audit.Step {
	redacted := slices.Clone(e.Trace)
	for i := range redacted {
		switch s := &redacted[i]; s.What {
		case "tenant":
			s.Subject = e.Tenant
		case "client":
			s.Subject = e.Client
		case "client_certificate":
			s.Subject = ""
		}
	}
	return redacted
}

// notKept is the text of a value that is not told.
const notKept = "(not kept)"

// value returns the text of something that the rule read. All of it that is the
// same as in the record is redacted as there.
func (r *redactor) value(e *audit.Explained, v audit.Value) string {
	rules := r.redaction.WithDefaults()
	rule := audit.Keep
	path := inConditions(v.Path)
	switch root, _, _ := strings.Cut(path, "."); {
	case path == "request.ip":
		return strconv.Quote(e.IP)
	case path == "user" || path == "user.id":
		rule = rules.User
	case path == "client" || path == "client.id":
		rule = rules.Client
	case root == "tenant":
		rule = rules.Tenant
	case path == "request.path" || path == "request.raw_path" || root == "params" || root == "passport":
		rule = rules.Path
	}
	if rule != audit.Keep {
		return notKept
	}
	return audit.WithoutTokens(v.Text)
}

// inConditions returns what conditions call something that a policy in Rego calls
// path.
func inConditions(path string) string {
	switch {
	case path == "input.identity.ip", path == "input.attributes.source.address.socketAddress.address":
		return "request.ip"
	case path == "input.parsed_path", strings.HasPrefix(path, "input.parsed_path."):
		return "request.path"
	}
	return strings.TrimPrefix(path, "input.identity.")
}
