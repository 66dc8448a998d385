package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/audit"
)

func TestWriteExplained(t *testing.T) {
	t.Parallel()
	e := &audit.Explained{
		Decision: audit.Decision{
			Time: time.Date(2026, 11, 3, 9, 30, 0, 0, time.UTC), ID: "3f9a", Decision: audit.Deny, Status: 403, Reason: "policy_denied",
			Policy: "gateway/public", Revision: "9ad1", Route: "admin", Rule: "edge.yaml:12:12", Method: "POST", Path: "/admin/\x1b[2K7",
			User: "alice", Tenant: "acme", Client: "web", Provider: "staff", Credentials: []string{"access_token", "id_token"},
			IP: "192.0.2.0/24", RequestID: "req-1", Microseconds: 42,
		},
		Trace: []audit.Step{
			{What: "route", Subject: "admin", Outcome: "ok"},
			{What: "credential", Subject: "access_token+id_token", Outcome: "found"},
			{What: "rule", Subject: "edge.yaml:12:12", Outcome: "policy_denied"},
		},
		Values: []audit.Value{{Path: "user.groups", Text: `["sales"]`}},
		Cause:  "no such key: region",
	}
	var b bytes.Buffer
	if err := writeExplained(&b, e); err != nil {
		t.Fatal(err)
	}
	want := `decision    3f9a
result      deny, 403 policy_denied
time        2026-11-03T09:30:00Z, took 42µs
policy      gateway/public, revision 9ad1, route admin
request     POST /admin/` + "\ufffd" + `[2K7, id req-1
from        192.0.2.0/24
user        alice, of acme, client web, by staff
shown       access_token, id_token
cause       no such key: region
what to do  docs/reasons.md#policy_denied
looked at
  route       admin                  ok
  credential  access_token+id_token  found
  rule        edge.yaml:12:12        policy_denied
values
  user.groups  ["sales"]
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
