package audit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/audit"
)

// line is a line of a decision log, as somebody else would read it.
type line struct {
	Schema int    `json:"schema"`
	Kind   string `json:"kind"`
	Count  uint64 `json:"count"`
	audit.Decision
}

// decisions returns the lines of decision logs. All must be whole, and have no
// field that line has not.
func decisions(t *testing.T, paths ...string) (lines []line) {
	t.Helper()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, parse(t, text)...)
	}
	return lines
}

func parse(t *testing.T, text []byte) (lines []line) {
	t.Helper()
	for raw := range bytes.Lines(text) {
		in := json.NewDecoder(bytes.NewReader(raw))
		in.DisallowUnknownFields()
		var l line
		if err := in.Decode(&l); err != nil || !bytes.HasSuffix(raw, []byte("}\n")) {
			t.Fatalf("line %q: %v", raw, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// full is a decision with all fields.
func full() *audit.Decision {
	return &audit.Decision{
		Time: time.Date(2026, 11, 3, 9, 30, 0, 123456789, time.FixedZone("", 3600)),
		ID:   "d-7f3c", Decision: audit.Deny, Status: 403, Reason: "policy_denied",
		Policy: "service/orders", Revision: "9ad1", Route: "create-order", Rule: "orders.yaml:12:12",
		Method: "POST", Path: "/orders/7", Pattern: "/orders/{id}",
		User: "alice", Tenant: "acme", Client: "web", Caller: "spiffe://shop.example/gateway/public", IP: "192.0.2.7",
		Provider: "staff", Credentials: []string{"access_token", "id_token"},
		Transaction: "t-1", RequestID: "r-1", Microseconds: 42,
	}
}

// The schema is a contract: docs/decision-log.md describes this line.
func TestDecisionIsOneLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	record(t, path, full())
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	run := decisions(t, path)[0].Run
	want := `{"schema":1,"kind":"decision","time":"2026-11-03T08:30:00.123456Z",` +
		`"agent":"service/orders","instance":"orders-1","run":"` + run + `","sequence":1,"id":"d-7f3c","decision":"deny","status":403,"reason":"policy_denied",` +
		`"policy":"service/orders","revision":"9ad1","route":"create-order","rule":"orders.yaml:12:12","method":"POST",` +
		`"path":"/orders/7","user":"alice","tenant":"acme","client":"web","caller":"spiffe://shop.example/gateway/public",` +
		`"ip":"192.0.2.7","provider":"staff","credentials":["access_token","id_token"],"txn":"t-1","request_id":"r-1","duration_us":42}` + "\n"
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	doc, err := os.ReadFile("../docs/decision-log.md")
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for name := range fields {
		if !strings.Contains(string(doc), "| `"+name+"` |") {
			t.Errorf("docs/decision-log.md does not say what %q is", name)
		}
	}
}

// A01: what strangers choose is one harmless line, and not a long one.
func TestHostileTextIsOneLine(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"line breaks":     "/a\r\n{\"decision\":\"allow\"}",
		"quotes":          `/a","decision":"allow","x":"`,
		"escape sequence": "/a\x1b[2K\x1b[1A\x1b]0;owned\x07",
		"C1 control":      "/a\u009b2K",
		"delete, nul":     "/a\x7f\x00",
		"line separators": "/a\u2028{\u2029}\u0085",
		"direction":       "/a\u202egnp.exe\u2066\u200b\ufeff",
		"not UTF-8":       "/a\xff\xfe\xc0\xaf\xed\xa0\x80",
		"beyond the BMP":  "/a\U000e0001\U0001f600",
		"backslashes":     `/a\u000a\`,
		"a MiB":           "/" + strings.Repeat("ü", 1<<19),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "decisions.jsonl")
			d := &audit.Decision{
				ID: text, Decision: audit.Deny, Reason: text, Policy: text, Revision: text, Route: text, Rule: text, Method: text, Path: text,
				Pattern: text, User: text, Tenant: text, Client: text, Caller: text, IP: text, Provider: text,
				Credentials: []string{text, text}, Transaction: text, RequestID: text,
			}
			record(t, path, d)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Count(raw, []byte("\n")) != 1 {
				t.Errorf("not one line: %q", raw)
			}
			for _, r := range strings.TrimSuffix(string(raw), "\n") {
				if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
					t.Errorf("%U stands in the line", r)
				}
			}
			got := decisions(t, path)[0]
			if got.Decision.Decision != audit.Deny {
				t.Errorf("decision is %q", got.Decision.Decision)
			}
			if len(text) < 100 {
				if want := strings.ToValidUTF8(text, "\ufffd"); len([]rune(got.User)) != len([]rune(text)) {
					t.Errorf("user is %q, want %q", got.User, want)
				}
			} else if len(raw) > 20<<10 || !strings.HasSuffix(got.Path, fmt.Sprintf("…(%d bytes more)", 1<<20+1-1023)) {
				t.Errorf("%d bytes, the path ends with %q", len(raw), got.Path[len(got.Path)-40:])
			}
		})
	}
}

func TestNoPathHasAQueryOrAToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	record(t, path, &audit.Decision{Path: "/a?token=secret"}, &audit.Decision{Path: "/b#secret?x"}, &audit.Decision{Path: "?secret"},
		&audit.Decision{Path: "/reset/eyJhbGciOiJub25lIn0.secret.secret/now"}, &audit.Decision{Path: "/heyJude/eyJ"}, &audit.Decision{Path: "/keys/chk_0123456789_secret_00"})
	raw, err := os.ReadFile(path)
	if err != nil || bytes.Contains(raw, []byte("secret")) {
		t.Errorf("%s, %v", raw, err)
	}
	var paths []string
	for _, line := range decisions(t, path) {
		paths = append(paths, line.Path)
	}
	if diff := cmp.Diff([]string{"/a", "/b#…", "", "/reset/(token)/now", "/heyJude/eyJ", "/keys/(token)"}, paths); diff != "" {
		t.Error(diff)
	}
}

// A record that waits holds nothing of the request that it was a part of.
func TestRecordsOwnTheirTexts(t *testing.T) {
	t.Parallel()
	whole := "POST /orders/7 Bearer token"
	e := &audit.Explained{
		Decision: audit.Decision{Method: whole[:4], Path: whole[5:14], Route: "orders", User: strings.Repeat("u", 1000)},
		Trace:    []audit.Step{{What: "route", Subject: whole[5:14], Outcome: "ok"}, {What: "route", Subject: "orders", Outcome: "ok"}},
	}
	within := func(s string) bool {
		at, begin := uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(unsafe.Pointer(unsafe.StringData(whole)))
		return at >= begin && at < begin+uintptr(len(whole))
	}
	if !within(e.Method) {
		t.Fatal("nothing to see")
	}
	ring := audit.NewRing(1, 0)
	ring.Add(e)
	kept := ring.Last(1, nil)[0]
	if within(kept.Method) || within(kept.Path) || within(kept.Trace[0].Subject) {
		t.Error("it holds on to the request")
	}
	got := fmt.Sprintf("%s %s %s %v %d", kept.Method, kept.Path, kept.Route, kept.Trace, len(kept.User))
	if want := "POST /orders/7 orders [{route /orders/7 ok} {route orders ok}] 275"; got != want {
		t.Errorf("became %q, want %q", got, want)
	}
}

func FuzzDecisionLine(f *testing.F) {
	f.Add("/a#b#c?d", "")
	f.Add("/a\r\n", "\x1b[0m")
	f.Add("\u2028\xff", `\"`)
	f.Fuzz(func(t *testing.T, path, user string) {
		file := filepath.Join(t.TempDir(), "decisions.jsonl")
		record(t, file, &audit.Decision{Path: path, User: user})
		got := decisions(t, file)
		if len(got) != 1 {
			t.Fatalf("lines are %+v", got)
		}
		_, fragment, ok := strings.Cut(got[0].Path, "#")
		if strings.Contains(got[0].Path, "?") || ok && !strings.HasPrefix(fragment, "…") {
			t.Errorf("line is %+v", got[0])
		}
	})
}
