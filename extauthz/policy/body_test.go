package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/policy"
)

// A body that could be read in two ways is none, whatever the rule asks of it.
func TestUnreadableBodyDenies(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"nothing":           "",
		"null":              "null",
		"cut off":           `{"amount": 1`,
		"two":               `{"amount": 1} {"amount": 1}`,
		"duplicate":         `{"amount": 1, "amount": 1000}`,
		"duplicate escaped": `{"amount": 1, "am\u006funt": 1000}`,
		"other case":        `{"amount": 1, "AMOUNT": 1000}`,
		"other case, first": `{"Amount": 1000, "amount": 1}`,
		"other case within": `{"amount": 1, "x": {"a": 1, "A": 2}}`,
		"long s":            `{"amount": 1, "s": 1, "\u017f": 2}`,
		"Kelvin":            `{"amount": 1, "k": 1, "\u212a": 2}`,
		"duplicate within":  `{"amount": 1, "x": [{"a": 1, "a": 2}]}`,
		"not UTF-8":         "{\"amount\": 1, \"x\": \"\xff\"}",
		"lone surrogate":    `{"amount": 1, "x": "\ud800"}`,
		"byte order mark":   "\ufeff{\"amount\": 1}",
		"comment":           `{"amount": 1 /* 1000 */}`,
		"NaN":               `{"amount": NaN}`,
		"leading zero":      `{"amount": 01}`,
		"beyond doubles":    `{"amount": 1, "x": 1e400}`,
		"form":              "amount=1",
		"too deep":          `{"amount": 1, "x": ` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "}",
	} {
		in := full()
		in.Request.Body = []byte(body)
		for _, source := range []string{
			`request.body.amount < 100`, `!(request.body.amount > 100)`, `request.body.amount != 1000`, `request.body.x != 'y'`,
			`!('x' in request.body)`, `request.body != null`,
		} {
			if allowed, err := eval(t, source, in); allowed || err == nil {
				t.Errorf("%s: %s = %v, %v", name, source, allowed, err)
			}
		}
	}
}

// Whole numbers are int and others double, which compare with each other.
func TestNumbersInBodies(t *testing.T) {
	t.Parallel()
	for number, expressions := range map[string][]string{
		"100":                  {`n == 100`, `n == 100.0`, `n <= 100.5`, `type(n) == int`, `n + 1 == 101`},
		"-0":                   {`n == 0`, `type(n) == int`},
		"100.0":                {`n == 100`, `type(n) == double`, `n + 1.0 == 101.0`},
		"1e2":                  {`n == 100`, `type(n) == double`},
		"1E-1":                 {`n < 0.11 && n > 0`, `n != 0`},
		"9223372036854775807":  {`n == 9223372036854775807`, `type(n) == int`},
		"10000000000000000000": {`n > 9223372036854775807`, `type(n) == double`},
		"-9223372036854775809": {`n < 0`, `type(n) == double`},
	} {
		in := full()
		in.Request.Body = []byte(`{"n": ` + number + `}`)
		for _, e := range expressions {
			source := "[request.body.n].all(n, " + e + ")"
			if got, err := eval(t, source, in); !got {
				t.Errorf("%s: %s = %v, %v", number, e, got, err)
			}
		}
	}
	in := full()
	in.Request.Body = []byte(`{"n": 1.5, "s": "5"}`)
	for _, source := range []string{`request.body.n + 1 > 0`, `request.body.s > 1`, `!(request.body.s > 1)`} {
		if got, err := eval(t, source, in); got || err == nil {
			t.Errorf("%s = %v, %v", source, got, err)
		}
	}
}

// A rule reads the largest body in a bounded time, also when it reads it in a
// loop.
func TestBodyIsReadOnce(t *testing.T) {
	t.Parallel()
	in := full()
	in.Request.Body = []byte(`{"lines": [` + strings.Repeat(`{"n": 1},`, 100_000) + `{"n": 1}]}`)
	calls := 0
	in.Request.Headers = func() map[string][]string {
		calls++
		return map[string][]string{"x": {"a"}}
	}
	in.User.Groups = make([]string, 200)
	for i := range in.User.Groups {
		in.User.Groups[i] = fmt.Sprint("g", i)
	}
	begin := time.Now()
	allowed, err := eval(t, `user.groups.all(g, request.body.lines[0].n == 1 && request.headers.x[0] == 'a' && !(g in request.query))`, in)
	if took := time.Since(begin); !allowed || err != nil || calls != 1 || took > 20*time.Second {
		t.Errorf("= %v, %v, after %v and %d looks at headers", allowed, err, took, calls)
	}
	begin = time.Now()
	allowed, err = eval(t, `request.body.lines.all(l, l.n == 1)`, in)
	if took := time.Since(begin); allowed || err == nil || !strings.Contains(err.Error(), "limit") || took > 10*time.Second {
		t.Errorf("= %v, %v, after %v", allowed, err, took)
	}
}

// What is estimated when a rule is written, for bodies and data sets.
func TestCostOfBodies(t *testing.T) {
	t.Parallel()
	for source, ok := range map[string]bool{
		`request.body.lines.all(l, l.n <= 10)`:                                             true,
		`request.body.text.matches('^[a-z]+$')`:                                            true,
		`request.body.sku in data.limits.skus`:                                             true,
		`data.limits.nets.exists(n, cidr(n).containsIP(request.ip))`:                       true,
		`data.limits.hosts.exists(h, h == request.host)`:                                   true,
		`request.body.a.all(x, request.body.b.all(y, x != y))`:                             false,
		`request.body.a.all(x, x.matches('^[a-z]+$'))`:                                     false,
		`data.limits.a.all(x, data.limits.b.all(y, data.limits.c.all(z, x != y && y!=z)))`: false,
	} {
		if faults := policy.Check(anywhere(source)); (len(faults) == 0) != ok {
			t.Errorf("%s: %v", source, faults)
		}
	}
}

func TestNewTablesRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{``, `[]`, `1`, `null`, `{"a": 1, "a": 2}`, `{"a": 1e999}`, `{} {}`} {
		if tables, err := policy.NewTables(nil, map[string][]byte{"x": []byte(text)}); err == nil {
			t.Errorf("%s: %v", text, tables)
		}
	}
}

// Roles are of the documents' groups: what a token says of roles and permissions
// counts for nothing, and who has no groups has no answer.
func TestRoles(t *testing.T) {
	t.Parallel()
	in := full()
	in.User.Groups, in.User.Scopes = []string{"admin", "orders.delete", "seller"}, []string{"admin"}
	for _, source := range []string{`'admin' in user.roles`, `'orders.delete' in user.permissions`, `size(user.roles) > 0`} {
		if got, err := eval(t, source, in); got || err != nil {
			t.Errorf("%s = %v, %v", source, got, err)
		}
	}
	in.Tables = nil
	if got, err := eval(t, `user.roles == [] && user.permissions == []`, in); !got || err != nil {
		t.Errorf("no tables: %v, %v", got, err)
	}
}

func TestBind(t *testing.T) {
	t.Parallel()
	bind := func(source string, in *policy.Input) (string, error) {
		program, faults := policy.CompileBinding(source)
		if len(faults) > 0 {
			t.Fatalf("%s: %v", source, faults)
		}
		return program.Bind(t.Context(), in)
	}
	for source, want := range map[string]string{
		`params.id`: "42", `tenant + '/' + params.id`: "acme/42", `string(request.body.amount)`: "99",
		`request.body.lines[0].sku + ''`: "A-1", `'x' == tenant ? 'a' : 'b'`: "b", `user.id`: "alice",
	} {
		if got, err := bind(source, full()); got != want || err != nil {
			t.Errorf("%s = %q, %v", source, got, err)
		}
	}
	for _, value := range []string{"", " ", "a ", "a\n", "a\u202eb", strings.Repeat("a", 257)} {
		in := full()
		in.Params = map[string]string{"id": value}
		if got, err := bind(`params.id`, in); err == nil {
			t.Errorf("%q: bound %q", value, got)
		}
	}
	if got, err := bind(`params.id`, &policy.Input{}); err == nil || got != "" {
		t.Errorf("missing: bound %q", got)
	}
	for _, source := range []string{`1`, `true`, `user.groups`, `request.body.id`, `dyn('a')`, `null`, ``} {
		if _, faults := policy.CompileBinding(source); len(faults) == 0 {
			t.Errorf("%s: no fault", source)
		}
	}
	for source, hint := range map[string]bool{`request.body.order`: true, `size(user.groups)`: true, `now`: true, `user.groups`: false, `params`: false} {
		_, faults := policy.CompileBinding(source)
		if len(faults) != 1 || strings.Contains(faults[0].Message, "write string(…)") != hint {
			t.Errorf("%s: %v", source, faults)
		}
	}
}
