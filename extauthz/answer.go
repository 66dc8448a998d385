package extauthz

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/wire"
)

// Headers that requests get, lose or are known by.
const (
	headerPassport    = "txn-token"
	headerRequestID   = "x-request-id"
	headerChallenge   = "www-authenticate"
	headerPartialBody = "x-envoy-auth-partial-body"
)

// credentialHeaders are those that no credential gets out of a gateway by.
var credentialHeaders = []string{
	credential.HeaderAuthorization, credential.HeaderIDToken, credential.HeaderAPIKey,
}

// allHeaders are these, and then that of Passports.
var allHeaders = append(slices.Clip(credentialHeaders), headerPassport)

func (d *decision) response() *wire.Response {
	if d.verdict != allowed {
		return d.denied()
	}
	r := &wire.Response{Allowed: true, Metadata: d.metadata()}
	if d.strips {
		r.Remove = credentialHeaders
	}
	switch {
	case d.passport != "":
		r.Set = []wire.Pair{{Name: headerPassport, Value: d.passport}}
	case d.strips: // one from outside is nobody's
		r.Remove = allHeaders
	case d.gateway:
		r.Remove = allHeaders[len(credentialHeaders):]
	}
	return r
}

// problem is what a client is told (RFC 9457): a word that is the same for all
// that it must not tell apart, and what to ask an operator with.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Code     string `json:"code"`
	Decision string `json:"decision"`
}

// code returns what a client may know of a reason.
func (d *decision) code() string {
	switch {
	case d.verdict == loginTooWeak && d.Status == http.StatusUnauthorized, d.verdict == loginTooOld && d.Status == http.StatusUnauthorized:
		return "step_up_required"
	case d.Status == http.StatusUnauthorized:
		return "unauthenticated"
	case d.Status == http.StatusForbidden:
		return "forbidden"
	case d.Status == http.StatusServiceUnavailable:
		return "unavailable"
	}
	return "bad_request"
}

func (d *decision) denied() *wire.Response {
	body, err := json.Marshal(problem{
		Type: "about:blank", Title: http.StatusText(d.Status), Status: d.Status, Code: d.code(), Decision: d.ID,
	})
	if err != nil {
		body = nil // texts and a number
	}
	r := &wire.Response{Status: d.Status, Set: problemHeaders, Body: string(body) + "\n", Metadata: d.metadata()}
	if d.challenge != "" && d.Status == http.StatusUnauthorized {
		r.Set = append(slices.Clip(problemHeaders), wire.Pair{Name: headerChallenge, Value: d.challenge})
	}
	return r
}

var problemHeaders = []wire.Pair{
	{Name: "content-type", Value: "application/problem+json"}, {Name: "cache-control", Value: "no-store"},
}

// clientStatus returns the HTTP status that a client sees: where a policy has
// one for all denials, it tells nobody whether to authenticate.
func (d *decision) clientStatus() int {
	code := int(cmp.Or(d.verdict.status, typev3.StatusCode_ServiceUnavailable))
	if d.denyStatus != 0 && code == http.StatusUnauthorized {
		return d.denyStatus
	}
	return code
}

// metadata is what rate limits and access logs read.
func (d *decision) metadata() []wire.Pair {
	var user, tenant, client string
	if id := d.Identity; id != nil {
		user, tenant, client = id.User, id.Tenant, id.Client
	}
	return []wire.Pair{
		{Name: "user", Value: cmp.Or(user, unknown)},
		{Name: "tenant", Value: cmp.Or(tenant, unknown)},
		{Name: "client", Value: cmp.Or(client, unknown)},
		{Name: "plan", Value: cmp.Or(d.Plan, unknown)},
		{Name: "ip", Value: cmp.Or(network(d.IP), unknown)},
		{Name: "caller", Value: cmp.Or(d.Caller, unknown)},
		{Name: "reason", Value: cmp.Or(d.Reason, unknown)},
		{Name: "decision", Value: cmp.Or(d.ID, unknown)},
	}
}
