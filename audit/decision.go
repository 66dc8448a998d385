package audit

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"
)

// SchemaVersion is that of the lines of a decision log. Fields may be added
// under the same version; it grows when one goes or means something else.
const SchemaVersion = 1

// The two ways that a [Decision] goes.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Decision is the record of one authorization decision. docs/decision-log.md
// says what each field means, and is part of the contract.
//
// A record has no field for a token, a key, a password, a cookie, a header or a
// query, and none for text of any kind: what is not named here cannot get in.
type Decision struct {
	// Time is when the check began.
	Time time.Time `json:"time"`
	// Agent is the workload beside which it was decided, and Instance which one of
	// it. The log sets them.
	Agent    string `json:"agent,omitempty"`
	Instance string `json:"instance,omitempty"`
	// Run and Sequence number the records of one process, also those that were
	// lost. The log sets them.
	Run      string `json:"run"`
	Sequence uint64 `json:"sequence"`

	ID       string `json:"id"`
	Decision string `json:"decision"`
	// Status is what the client got, 200 if the request went on.
	Status   int    `json:"status"`
	Reason   string `json:"reason"`
	Policy   string `json:"policy,omitempty"`
	Revision string `json:"revision,omitempty"`
	Route    string `json:"route,omitempty"`
	// Rule is where the rule stands that decided: file:line:column.
	Rule   string `json:"rule,omitempty"`
	Method string `json:"method,omitempty"`
	// Path is without the query. Pattern is the route's, which a [Redactor] can put
	// in its place.
	Path    string `json:"path,omitempty"`
	Pattern string `json:"-"`

	User   string `json:"user,omitempty"`
	Tenant string `json:"tenant,omitempty"`
	Client string `json:"client,omitempty"`
	// Caller is the SPIFFE ID of the workload on the other side.
	Caller string `json:"caller,omitempty"`
	IP     string `json:"ip,omitempty"`
	// Provider vouched for the user, in the words of Passports: an identity
	// provider, or the mesh itself. Credentials are the kinds that were shown.
	Provider    string   `json:"provider,omitempty"`
	Credentials []string `json:"credentials,omitempty"`

	// Transaction is the Passport's txn, one for the whole chain of calls.
	Transaction string `json:"txn,omitempty"`
	RequestID   string `json:"request_id,omitempty"`
	// Microseconds are how long it took to decide.
	Microseconds int64 `json:"duration_us"`

	// owned is how many bytes its texts have, if they are its own; 0 if not.
	owned int
}

// unavailable is what becomes of a decision that cannot be recorded in time.
func (d *Decision) unavailable() {
	d.Decision, d.Status, d.Reason = Deny, 503, ReasonUnavailable
}

// ReasonUnavailable is the reason of a decision that had to be recorded and was
// not.
const ReasonUnavailable = "audit_unavailable"

// The longest that a field may be; strangers choose what some of them hold.
const (
	maxPath        = 1024
	maxField       = 256
	maxCredentials = 8
)

// clip cuts what is too long.
func (d *Decision) clip() {
	d.Path = truncate(WithoutTokens(withoutQuery(d.Path)), maxPath)
	for _, s := range d.texts() {
		if len(*s) > maxField {
			*s = truncate(*s, maxField)
		}
	}
	d.Credentials = d.Credentials[:min(len(d.Credentials), maxCredentials)]
	isLong := func(s string) bool { return len(s) > maxField }
	if slices.ContainsFunc(d.Credentials, isLong) {
		d.Credentials = slices.Clone(d.Credentials) // it is the caller's
		for i, s := range d.Credentials {
			d.Credentials[i] = truncate(s, maxField)
		}
	}
}

// Own makes d hold on to nothing but its own texts, cut where they are too long:
// those of a request are often parts of all of it, credentials included.
func (d *Decision) Own() {
	if d.owned > 0 {
		return
	}
	d.clip()
	n := len(d.Path)
	for _, s := range d.texts() {
		n += len(*s)
	}
	var b strings.Builder
	b.Grow(n)
	own := func(s *string) {
		begin := b.Len()
		b.WriteString(*s)
		*s = b.String()[begin:] // it never grows beyond its one piece of memory
	}
	own(&d.Path)
	for _, s := range d.texts() {
		own(s)
	}
	d.owned = n
}

// texts are all fields that hold a string, but for the path and what the log
// sets.
func (d *Decision) texts() [17]*string {
	return [...]*string{
		&d.ID, &d.Decision, &d.Reason, &d.Policy, &d.Revision, &d.Route, &d.Rule,
		&d.Method, &d.Pattern, &d.User, &d.Tenant, &d.Client, &d.Caller, &d.IP, &d.Provider, &d.Transaction, &d.RequestID,
	}
}

// size is about how much memory d takes, which owns its texts.
func (d *Decision) size() int {
	return int(unsafe.Sizeof(*d)) + d.owned + 32*len(d.Credentials)
}

// withoutQuery keeps a query out also where a caller forgot to, and a fragment,
// which may be a credential, too. That there was one stays: it is why no such path
// is let in.
func withoutQuery(path string) string {
	path, _, _ = strings.Cut(path, "?")
	if path, _, ok := strings.Cut(path, "#"); ok {
		return path + "#…"
	}
	return path
}

// What JWTs begin with, the JSON of their header in base64, and API keys.
const (
	jwtPrefix    = "eyJ"
	apiKeyPrefix = "chk_"
)

// WithoutTokens hides tokens and keys that stand in a path, where they do not
// belong.
func WithoutTokens(path string) string {
	if !strings.Contains(path, jwtPrefix) && !strings.Contains(path, apiKeyPrefix) {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.Contains(s, jwtPrefix) && strings.Contains(s, ".") || strings.Contains(s, apiKeyPrefix) {
			segments[i] = "(token)"
		}
	}
	return strings.Join(segments, "/")
}

// truncate cuts s to limit bytes or a few less, and says how many it cut.
func truncate(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return fmt.Sprintf("%s…(%d bytes more)", s[:limit], len(s)-limit)
}
