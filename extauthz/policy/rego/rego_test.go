package rego_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"go.uber.org/goleak"

	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const query = "data.shop.allow"

func number(s string) json.Number { return json.Number(s) }

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// prepare compiles one module of package shop.
func prepare(t *testing.T, text string, options rego.Options) *rego.Query {
	t.Helper()
	q, err := compile(t, rego.Source{Modules: []rego.Module{{File: "shop.rego", Text: "package shop\n" + text}}}, options)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func compile(t *testing.T, source rego.Source, options rego.Options) (*rego.Query, error) {
	t.Helper()
	policy, err := rego.Compile(t.Context(), source)
	if err != nil {
		return nil, err
	}
	if options.Timeout == 0 {
		options.Timeout = time.Minute // on a busy machine
	}
	return policy.Prepare(t.Context(), query, options)
}

func value(t *testing.T, v any) ast.Value {
	t.Helper()
	out, err := ast.InterfaceToValue(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEval(t *testing.T) {
	t.Parallel()
	in := map[string]any{"user": "alice", "groups": []string{"sales"}, "n": 2}
	for text, want := range map[string]any{
		`allow := true`:                                        true,
		`default allow := false`:                               false,
		`allow if "sales" in input.groups`:                     true,
		`allow := input.n + 1`:                                 json.Number("3"),
		`allow := {"allowed": true, "n": [1]}`:                 map[string]any{"allowed": true, "n": []any{json.Number("1")}},
		`allow contains g if some g in input.groups`:           []any{"sales"},
		`allow contains x if { some x in ["b", "a"] }`:         []any{"a", "b"},
		`allow := null`:                                        nil,
		`allow := time.now_ns()`:                               json.Number("1795341600000000000"),
		`allow if { print("secret"); input.n == 2 }`:           true,
		`allow := regex.match("^a+$", "aaa")`:                  true,
		`allow if not input.absent`:                            true,
		`allow if { false } else := "other"`:                   "other",
		`allow if count(uuid.rfc4122("a")) == 36`:              true,
		`allow if net.cidr_contains("10.0.0.0/8", "10.1.2.3")`: true,
	} {
		got, err := prepare(t, text, rego.Options{}).Eval(t.Context(), value(t, in), now)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", text, err, diff)
		}
	}
}

func TestNoDecision(t *testing.T) {
	t.Parallel()
	for text, undefined := range map[string]bool{
		`allow if input.absent`:                               true,
		`allow if to_number("x") == 1`:                        true, // as in OPA: what cannot be done is undefined
		`allow := input.absent`:                               true,
		"allow := 1 if input.x\nallow := 2 if input.x":        false,
		`allow := {k: v | some k in ["a"]; some v in [1, 2]}`: false,
	} {
		got, err := prepare(t, text, rego.Options{}).Eval(t.Context(), value(t, map[string]any{"x": true}), now)
		if got != nil || err == nil || errors.Is(err, rego.ErrUndefined) != undefined {
			t.Errorf("%s = %v, %v", text, got, err)
		}
	}
	var none *rego.Query
	if got, err := none.Eval(t.Context(), nil, now); got != nil || err == nil {
		t.Errorf("no policy: %v, %v", got, err)
	}
}

func TestDataAndSeveralModules(t *testing.T) {
	t.Parallel()
	q, err := compile(t, rego.Source{
		Modules: []rego.Module{
			{File: "a.rego", Text: "package shop\nimport data.lib\nallow if lib.admin(input.user)"},
			{File: "b.rego", Text: "package lib\nadmin(u) if u in data.admins"},
		},
		Data:     map[string]any{"admins": []any{"ada"}},
		Revision: "r1",
	}, rego.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := q.Eval(t.Context(), value(t, map[string]any{"user": "ada"}), now); got != true || q.Revision() != "r1" {
		t.Errorf("= %v, %v, revision %s", got, err, q.Revision())
	}
	if got, err := q.Eval(t.Context(), value(t, map[string]any{"user": "bob"}), now); !errors.Is(err, rego.ErrUndefined) {
		t.Errorf("= %v, %v", got, err)
	}
}

func TestLanguages(t *testing.T) {
	t.Parallel()
	const (
		v0  = "package shop\ndefault allow = false\nallow { input.n == 1 }\nroles[r] { r := [\"a\"][_] }\n"
		old = "package shop\nallow { any([input.n == 1, false]) }" // a function that v1 has no more
		v1  = "package shop\nallow if input.n == 1"
	)
	for name, c := range map[string]struct {
		text    string
		version ast.RegoVersion
		ok      bool
	}{
		"v0 as v0":               {v0, ast.RegoV0, true},
		"v0 as v1":               {v0, ast.RegoUndefined, false},
		"deprecated functions":   {old, ast.RegoV0, true},
		"v1 as v1":               {v1, ast.RegoUndefined, true},
		"v1 as v0":               {v1, ast.RegoV0, false},
		"v1 as v0 that says so":  {strings.Replace(v1, "\n", "\nimport rego.v1\n", 1), ast.RegoV0, true},
		"future keywords as v0":  {strings.Replace(v1, "\n", "\nimport future.keywords.if\n", 1), ast.RegoV0, true},
		"v1 that says it, as v1": {strings.Replace(v1, "\n", "\nimport rego.v1\n", 1), ast.RegoV1, true},
	} {
		q, err := compile(t, rego.Source{Modules: []rego.Module{{File: "m.rego", Text: c.text, Version: c.version}}}, rego.Options{})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if name == "v0 as v1" && !strings.Contains(err.Error(), "m.rego:3:1: `if` keyword is required before rule body: the module is Rego v0") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if got, err := q.Eval(t.Context(), value(t, map[string]any{"n": 1}), now); got != true {
				t.Errorf("%s = %v, %v", name, got, err)
			}
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	at := func(line, column int, message string) mesh.Fault {
		return mesh.Fault{Position: mesh.Position{File: "shop.rego", Line: line, Column: column}, Message: message}
	}
	for text, want := range map[string]mesh.Faults{
		"package shop\nallow if http.send({}).status_code == 200": {
			at(2, 10, "http.send may not be called: it calls others while the request waits"),
		},
		"package shop\nallow if {\n\tx := [opa.runtime().env | true]\n\tx[0].A\n}": {
			at(3, 8, "opa.runtime may not be called: it tells the environment of the process, with the secrets in it"),
		},
		// CVE-2022-36085: a refused function in the place of another.
		"package shop\nallow if count(input.x) == 1 with count as http.send": {
			at(2, 30, "http.send may not be called: it calls others while the request waits"),
		},
		"package shop\nallow if nosuch(1)":       {at(2, 10, "undefined function nosuch")},
		"package shop\nallow if count(1) == 1":   {at(2, 10, "count: invalid argument(s)\n\thave: (number, ???)\n\twant: (collection: any<...>, n: number)")},
		"package shop\nallow if x == 1":          {at(2, 10, "var x is unsafe")},
		"package shop\nallow if data.shop.allow": {at(2, 1, "rule data.shop.allow is recursive: data.shop.allow -> data.shop.allow")},
		"package shop\n\nallow if }":             nil, // see below
	} {
		_, err := rego.Compile(t.Context(), rego.Source{Modules: []rego.Module{{File: "shop.rego", Text: text}}})
		got, ok := errors.AsType[mesh.Faults](err)
		if !ok {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if want == nil {
			if !strings.HasPrefix(got[0].Error(), "shop.rego:3:10: unexpected } token") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
}

// Every way to name a refused function ends at the compiler at the latest.
func TestRefusedFunctions(t *testing.T) {
	t.Parallel()
	arguments := map[string]string{
		"http.send": `{"method": "GET", "url": "http://127.0.0.1"}`, "net.lookup_ip_addr": `"localhost"`, "opa.runtime": ``,
		"json.match_schema": `{}, {}`, "json.verify_schema": `{}`, "rego.parse_module": `"a", "package a"`, "bits.lsh": `1, 2`,
		"graph.reachable_paths": `{}, {}`,
	}
	for _, name := range rego.Refused() {
		args, ok := arguments[name]
		if !ok {
			t.Fatalf("no arguments for %s", name)
		}
		call := name + "(" + args + ")"
		for _, text := range []string{
			`allow if ` + call, `allow := ` + call, `allow := {"a": [` + call + `]}`, `allow contains ` + call, `allow[` + call + `] := 1`,
			`allow if not ` + call, `allow := [x | x := ` + call + `]`, `f(_) := ` + call + "\nallow := f(1)",
			`allow if every x in [1] { ` + call + ` == x }`, `allow if { false } else := ` + call,
			`allow if input.x with input.x as ` + call, `allow if f(1) with f as ` + name + "\nf(x) := x",
			`allow if count(1) with count as ` + name, `allow := 1 if true with ` + name + ` as f` + "\nf(x) := x",
		} {
			_, err := compile(t, rego.Source{Modules: []rego.Module{{File: "shop.rego", Text: "package shop\n" + text}}}, rego.Options{})
			if err == nil || !strings.Contains(err.Error(), "shop.rego:") || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

// A name is a name, whatever it looks like (OPA CVE-2025-46569).
func TestQueryIsAName(t *testing.T) {
	t.Parallel()
	policy, err := rego.Compile(t.Context(), rego.Source{
		Modules: []rego.Module{{File: "m.rego", Text: "package shop\nallow := true\nparts[x] := x if some x in [1]\nf(x) := x"}},
		Data:    map[string]any{"flags": map[string]any{"open": true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for query, ok := range map[string]bool{
		`data.shop.allow`: true, `data.shop["allow"]`: true, `data.flags.open`: true,
		`data.shop.deny`: false, `data.shop.allow; true`: false, `true`: false, `data`: false, `input.x`: false,
		`data.shop[x]`: false, `data.shop.allow == true`: false, `not data.shop.allow`: false, ``: false,
		`data.shop["allow"] := x`: false, `data.flags.closed`: false, "data.shop.allow\ntrue": false, `http.send({})`: false,
		`data.shop["x\"]; true; data[\""]`: false, `data.shop.allow with input as 1`: false, `data.shop.f(true)`: false,
	} {
		q, err := policy.Prepare(t.Context(), query, rego.Options{})
		if (err == nil) != ok {
			t.Errorf("%s: %v", query, err)
		}
		if err == nil {
			if got, err := q.Eval(t.Context(), nil, now); got != true {
				t.Errorf("%s = %v, %v", query, got, err)
			}
		}
	}
}

// What would take for ever, or all memory, ends in time with a denial, and
// leaves no goroutine (TestMain).
func TestEvaluationIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 1<<20)
	for name, text := range map[string]string{
		"range":         `allow if count(numbers.range(0, 1000000000)) > 0`,
		"range step":    `allow if count(numbers.range_step(0, 1000000000, 1)) > 0`,
		"nested loops":  `allow if { some a in numbers.range(1, 5000); some b in numbers.range(1, 5000); some c in numbers.range(1, 5000); a + b + c < 0 }`,
		"walk":          `allow if { some i, j in numbers.range(1, 3000); walk(input, [p, v]); walk(input, [q, w]); p != q; v == w; i + j < 0 }`,
		"expand":        `allow if count(net.cidr_expand("10.0.0.0/8")) == 0`,
		"comprehension": `allow if count({[a, b, c] | some a in numbers.range(1, 1000); some b in numbers.range(1, 1000); some c in numbers.range(1, 1000)}) == 0`,
		"strings":       `allow if { x := [s | some i in numbers.range(1, 100000); s := concat("", [input.long, format_int(i, 10)])]; count(x) == 0 }`,
	} {
		t.Run(name, func(t *testing.T) {
			q := prepare(t, text, rego.Options{Timeout: 20 * time.Millisecond})
			in := value(t, map[string]any{"long": long, "deep": []any{[]any{[]any{1, 2, 3}}}})
			begin := time.Now()
			got, err := q.Eval(t.Context(), in, now)
			if got != nil || !errors.Is(err, rego.ErrTimeout) {
				t.Errorf("= %v, %v", got, err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("pattern", func(t *testing.T) {
		t.Parallel()
		q := prepare(t, `allow if regex.match("(a+)+$", concat("", [input.long, "b"]))`, rego.Options{Timeout: 5 * time.Second})
		if got, err := q.Eval(t.Context(), value(t, map[string]any{"long": long}), now); got != nil || err == nil {
			t.Errorf("= %v, %v", got, err)
		}
	})
}

// What a function failed on may be a secret. A strict query fails with it, and says
// where; another takes it for undefined, as OPA does.
func TestStrict(t *testing.T) {
	t.Parallel()
	in := value(t, map[string]any{"token": "secret"})
	for name, text := range map[string]string{
		"number":  `allow if not to_number(input.token) == 1`,
		"time":    `allow if not time.parse_rfc3339_ns(input.token) == 1`,
		"network": `allow if not net.cidr_contains("10.0.0.0/8", input.token)`,
		"JSON":    `allow if not json.unmarshal(input.token) == 1`,
		"base64":  `allow if not base64.decode(concat("", [input.token, "!"])) == ""`,
		"token":   `allow if not io.jwt.decode(input.token)[1].sub == ""`,
		"bits":    `allow if not bits.or(1, 1.5) == 1`,
		"pattern": `allow if not regex.match(concat("", ["(", input.token]), "x")`,
		"version": `allow if not semver.compare(input.token, "1.0.0") == 0`,
		"units":   `allow if not units.parse(input.token) == 0`,
		"zero":    `allow if not 1 / count([]) == 0`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := prepare(t, text, rego.Options{Strict: true}).Eval(t.Context(), in, now)
			if got != nil || err == nil || errors.Is(err, rego.ErrUndefined) {
				t.Fatalf("strict: %v, %v", got, err)
			}
			if !strings.HasPrefix(err.Error(), "evaluate: shop.rego:2: ") || strings.Contains(err.Error(), "secret") {
				t.Errorf("strict: %v", err)
			}
			if _, err := prepare(t, text, rego.Options{}).Eval(t.Context(), in, now); err != nil && !errors.Is(err, rego.ErrUndefined) {
				t.Errorf("otherwise: %v", err)
			}
		})
	}
}

func TestCancelledContextDenies(t *testing.T) {
	t.Parallel()
	q := prepare(t, `allow if true`, rego.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := q.Eval(ctx, nil, now); got != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("= %v, %v", got, err)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if got, err := q.Eval(late, nil, now); got != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("= %v, %v", got, err)
	}
}

// Evaluations wait for a free place, and no longer than they may take.
func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	q := prepare(t, `allow if { input.slow; count(numbers.range(0, 1000000000)) > 0 }
		allow if not input.slow`, rego.Options{Timeout: 50 * time.Millisecond, Concurrent: 1})
	errs := make(chan error)
	const calls = 8
	for range calls {
		go func() {
			_, err := q.Eval(context.Background(), ast.NewObject(ast.Item(ast.StringTerm("slow"), ast.BooleanTerm(true))), now)
			errs <- err
		}()
	}
	for range calls {
		if err := <-errs; !errors.Is(err, rego.ErrTimeout) {
			t.Error(err)
		}
	}
	got, err := q.Eval(t.Context(), value(t, map[string]any{}), now)
	for deadline := time.Now().Add(30 * time.Second); errors.Is(err, rego.ErrTimeout) && time.Now().Before(deadline); { // a busy machine
		got, err = q.Eval(t.Context(), value(t, map[string]any{}), now)
	}
	if got != true {
		t.Errorf("afterwards: %v, %v", got, err)
	}
}
