package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
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

func TestHypothesis(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "headers")
	if err := os.WriteFile(file, []byte("Authorization: Bearer secret\n\nX-Id-Token: other: secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	header := func(name, value string) extauthz.HypotheticalHeader {
		return extauthz.HypotheticalHeader{Name: name, Value: value}
	}
	for name, row := range map[string]struct {
		flags requestFlags
		url   string
		want  extauthz.Hypothesis
	}{
		"path":              {requestFlags{}, "/orders/7?x=%2f#y", extauthz.Hypothesis{Method: "GET", Target: "/orders/7?x=%2f#y"}},
		"URL":               {requestFlags{}, "https://api.test:8443/orders/%37?x#y", extauthz.Hypothesis{Method: "GET", Host: "api.test:8443", Target: "/orders/%37?x"}},
		"host":              {requestFlags{}, "https://api.test", extauthz.Hypothesis{Method: "GET", Host: "api.test", Target: "/"}},
		"host, query":       {requestFlags{}, "https://api.test?x=1#y", extauthz.Hypothesis{Method: "GET", Host: "api.test", Target: "/?x=1"}},
		"slash in query":    {requestFlags{}, "https://api.test?x=/1", extauthz.Hypothesis{Method: "GET", Host: "api.test", Target: "/?x=/1"}},
		"slash in fragment": {requestFlags{}, "https://api.test#x=/1?y", extauthz.Hypothesis{Method: "GET", Host: "api.test", Target: "/"}},
		"as typed":          {requestFlags{}, "https://api.test//a/../%2e;b?x=/?y", extauthz.Hypothesis{Method: "GET", Host: "api.test", Target: "//a/../%2e;b?x=/?y"}},
		"path with a URL":   {requestFlags{}, "/login?next=https://shop.test/x", extauthz.Hypothesis{Method: "GET", Target: "/login?next=https://shop.test/x"}},
		"body":              {requestFlags{data: "{}"}, "/", extauthz.Hypothesis{Method: "POST", Target: "/", Body: []byte("{}")}},
		"everything": {
			requestFlags{method: "PUT", data: "@" + file, ip: "192.0.2.9", caller: "gateway/public", at: "2026-11-03T22:00:00Z", introspect: true},
			"/",
			extauthz.Hypothesis{
				Method: "PUT", Target: "/", Body: []byte("Authorization: Bearer secret\n\nX-Id-Token: other: secret\n"), IP: "192.0.2.9",
				Caller: "gateway/public", Time: time.Date(2026, 11, 3, 22, 0, 0, 0, time.UTC), Introspect: true,
			},
		},
		"headers": {
			requestFlags{headers: []string{"accept:*/*", "@" + file, "@-"}},
			"/",
			extauthz.Hypothesis{Method: "GET", Target: "/", Headers: []extauthz.HypotheticalHeader{
				header("accept", "*/*"), header("Authorization", "Bearer secret"), header("X-Id-Token", "other: secret"), header("x-api-key", "k"),
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := row.flags.hypothesis(strings.NewReader("x-api-key: k"), row.url)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&row.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, flags := range map[string]requestFlags{
		"no colon":       {headers: []string{"secret"}},
		"no name":        {headers: []string{": secret"}},
		"space in front": {headers: []string{"secret : x"}},
		"no file":        {headers: []string{"@" + dir + "/none"}},
		"no body":        {data: "@" + dir + "/none"},
		"no certificate": {certificate: dir + "/none"},
		"no time":        {at: "tonight"},
	} {
		if h, err := flags.hypothesis(strings.NewReader(""), "/"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	if h, err := new(requestFlags).hypothesis(strings.NewReader(""), "https://ada:secret@api.test/"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a user in the URL: %+v, %v", h, err)
	}
}
