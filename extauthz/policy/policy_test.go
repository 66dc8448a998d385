package policy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/mesh"
)

// full is a request that has everything.
func full() *policy.Input {
	return &policy.Input{
		User: policy.User{
			ID: "alice", Groups: []string{"sales", "ops"}, Scopes: []string{"read"},
			ACR: "gold", AMR: []string{"pwd", "mfa"}, Provider: "staff", AuthTime: time.Date(2026, 11, 22, 9, 50, 0, 0, time.UTC),
		},
		Client: policy.Client{ID: "web", Owner: "team-web", Plan: "pro"},
		Caller: policy.Caller{ID: "spiffe://shop.example/gateway/public", Role: "gateway", Name: "public"},
		Tenant: "acme",
		Request: policy.Request{
			Method: "POST", Path: "/orders/42", Host: "api.test", IP: "192.0.2.1", Query: "a=1&a=2",
			Target: "/orders/42?a=1&a=2", Body: []byte(`{"amount": 99, "rate": 0.5, "lines": [{"sku": "A-1", "n": 2}], "note": null}`),
			Headers: func() map[string][]string {
				return map[string][]string{"x-role": {"user", "admin"}}
			},
		},
		Params: map[string]string{"id": "42"},
		Now:    time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
		Bound:  map[string]string{"order": "42"},
		Tables: tables,
	}
}

var tables = func() *policy.Tables {
	t, err := policy.NewTables([]policy.Role{
		{Name: "seller", Groups: []string{"sales", "trainees"}, Permissions: []string{"orders.create", "orders.read"}},
		{Name: "reader", Groups: []string{"sales"}, Permissions: []string{"orders.read"}},
		{Name: "admin", Groups: []string{"admins"}, Permissions: []string{"orders.delete"}},
	}, map[string][]byte{
		"limits":    []byte(`{"amount": {"acme": 100}, "rate": 1.0, "closed": ["sun"]}`),
		"two-words": []byte(`{"a": true}`),
	})
	if err != nil {
		panic(err)
	}
	return t
}()

// anywhere is where everything can be read that the tests read.
func anywhere(source string) mesh.Expression {
	return mesh.Expression{Source: source, HasBody: true, Params: []string{"id", "a"}, Data: []string{"limits", "two-words"}}
}

func eval(t *testing.T, source string, in *policy.Input) (bool, error) {
	t.Helper()
	program, faults := policy.Compile(source)
	if len(faults) > 0 {
		t.Fatalf("%s: %v", source, faults)
	}
	return program.Eval(t.Context(), in)
}

func TestEval(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]bool{
		`true`:                      true,
		`false`:                     false,
		`user.id == 'alice'`:        true,
		`'sales' in user.groups`:    true,
		`!('sales' in user.groups)`: false,
		`'sale' in user.groups`:     false,
		`user.groups.exists(g, g.startsWith('op'))`:                                           true,
		`'read' in user.scopes`:                                                               true,
		`client.id == 'web' && tenant == 'acme'`:                                              true,
		`caller.role == 'gateway' && caller.name == 'public'`:                                 true,
		`caller.id == 'spiffe://shop.example/gateway/public'`:                                 true,
		`request.method == 'POST' && request.host == 'api.test' && request.ip == '192.0.2.1'`: true,
		`request.path.matches('^/orders/[0-9]+$')`:                                            true,
		`params.id == '42'`:                                                                   true,
		`'admin' in request.headers['x-role']`:                                                true,
		`request.query.a == ['1', '2']`:                                                       true,
		`now < timestamp('2027-01-01T00:00:00Z') && now.getHours() == 10`:                     true,
		`has(user.groups) && has(client.id)`:                                                  true,

		`user.acr == 'gold' && 'mfa' in user.amr && !('otp' in user.amr)`:                   true,
		`now - user.auth_time < duration('15m')`:                                            true,
		`now - user.auth_time < duration('5m')`:                                             false,
		`user.roles == ['reader', 'seller']`:                                                true,
		`'admin' in user.roles`:                                                             false,
		`user.permissions == ['orders.create', 'orders.read']`:                              true,
		`client.owner == 'team-web' && client.plan in ['pro', 'enterprise']`:                true,
		`passport.bound.order == params.id`:                                                 true,
		`user.provider == 'staff'`:                                                          true,
		`passport.bound.order == '43'`:                                                      false,
		`request.target == '/orders/42?a=1&a=2'`:                                            true,
		`request.body.amount < 100`:                                                         true,
		`request.body.amount < 99.5 && request.body.amount == 99.0`:                         true,
		`request.body.amount + 1 == data.limits.amount[tenant]`:                             true,
		`request.body.rate * 2.0 == data.limits.rate`:                                       true,
		`request.body.lines.all(l, l.n <= 10 && l.sku.startsWith('A-'))`:                    true,
		`size(request.body.lines) == 1`:                                                     true,
		`request.body.note == null`:                                                         true,
		`has(request.body.amount) && !has(request.body.discount)`:                           true,
		`request.body.amount <= data.limits.amount[tenant]`:                                 true,
		`'sun' in data.limits.closed && data['two-words'].a`:                                true,
		`cidr('192.0.2.0/24').containsIP(request.ip)`:                                       true,
		`cidr('192.0.2.0/24').containsIP(ip('192.0.3.1'))`:                                  false,
		`cidr('2001:db8::/32').containsIP('2001:db8::1')`:                                   true,
		`ip(request.ip).family() == 4 && !ip(request.ip).isLoopback()`:                      true,
		`isIP(request.ip) && ip(request.ip) == ip('192.0.2.1')`:                             true,
		`now.getHours('Europe/Zurich') == 11 && now.getDayOfWeek('Europe/Zurich') == 0`:     true,
		`now.getHours('+05:30') == 15`:                                                      true,
		`user.groups.exists(data, data == 'ops') && [1].all(passport, passport == 1)`:       true,
		`request.headers['x-role'].exists(r, r == 'admin') || request.query['a'][0] == 'x'`: true,
	} {
		if got, err := eval(t, source, full()); err != nil || got != want {
			t.Errorf("%s = %v, %v, want %v", source, got, err, want)
		}
	}
}

// A path and a host have one spelling, or a rule against one would let in another.
func TestOneSpelling(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/files/%40private/x": "/files/@private/x", "/a%2Bb%3A%2C": "/a+b:,", "/a%20b%C3%BC%22%2B": "/a%20b%C3%BC%22+", "/": "/",
	} {
		in := full()
		in.Request.Path = path
		for source, allowed := range map[string]bool{
			fmt.Sprintf("request.path == '%s' && request.raw_path == '%s'", want, path): true,
			fmt.Sprintf("!request.path.startsWith('%s')", want):                         false,
		} {
			if got, err := eval(t, source, in); got != allowed || err != nil {
				t.Errorf("%s: %s = %v, %v", path, source, got, err)
			}
		}
		if got := in.Identity()["path"]; got != want {
			t.Errorf("%s: identity.path = %v", path, got)
		}
	}
	for host, want := range map[string]string{
		"internal.shop.example": "internal.shop.example", "INTERNAL.shop.Example": "internal.shop.example",
		"internal.shop.example:443": "internal.shop.example", "internal.shop.example.": "internal.shop.example",
		"Internal.shop.example.:8443": "internal.shop.example", "internal.shop.example:": "internal.shop.example",
		"192.0.2.1:80": "192.0.2.1", "my_host-1": "my_host-1", "[::1]": "[::1]", "[0:0::0001]:443": "[::1]", "[2001:DB8::A]": "[2001:db8::a]",
	} {
		in := full()
		in.Request.Host = host
		if got, err := eval(t, fmt.Sprintf("request.host == '%s'", want), in); !got || err != nil {
			t.Errorf("%s is not %s: %v", host, want, err)
		}
		if got := in.Identity()["host"]; got != want {
			t.Errorf("%s: identity.host = %v", host, got)
		}
	}
	// What is no host is missing.
	for _, host := range []string{
		"", ".", ":443", "a..b", "a.test..", ".a.test", "a.test:443x", "a.test:-1", "user@a.test", "a.test,b.test", "a.test b.test", "a.test/x", "a%2Etest",
		"a.te\u017ft", "a.\u212a", "[::1", "::1", "[::1]x", "[::1]:x", "[fe80::1%25eth0]", "[127.0.0.1]", "[]", `"a.test"`, "a.test#", "a:b:1",
	} {
		in := full()
		in.Request.Host = host
		if got, err := eval(t, "request.host != 'internal.shop.example'", in); got || err == nil {
			t.Errorf("%q is let in, %v", host, err)
		}
		if got, ok := in.Identity()["host"]; ok {
			t.Errorf("%q: identity.host = %v", host, got)
		}
	}
}

// ofMissing are rules about what an empty input does not have.
var ofMissing = []string{
	`user.id == 'x'`, `'x' in user.groups`, `'x' in user.scopes`, `client.id == 'x'`, `caller.id == 'x'`,
	`caller.role == 'x'`, `caller.name == 'x'`, `tenant == 'x'`, `request.method == 'x'`, `request.path == 'x'`, `request.raw_path == 'x'`,
	`request.host == 'x'`, `request.ip == 'x'`, `'x' in request.headers`, `params.id == 'x'`,
	`now > timestamp('2000-01-01T00:00:00Z')`, `request.headers['a'] == ['x']`, `request.query.a == ['x']`,
	`user.acr == 'x'`, `user.provider == 'x'`, `'x' in user.amr`, `user.auth_time < now`, `'x' in user.roles`, `'x' in user.permissions`,
	`client.owner == 'x'`, `client.plan == 'x'`, `passport.bound.order == 'x'`, `'x' in passport.bound`,
	`request.target == 'x'`, `request.body == 'x'`, `request.body.a == 'x'`, `request.body.a > 1`, `'a' in request.body`,
	`data.limits.a == 1`, `data.limits == 1`, `cidr('10.0.0.0/8').containsIP(request.ip)`, `isIP(request.ip)`,
	`now.getHours('Europe/Zurich') < 18`,
}

func TestMissingDenies(t *testing.T) {
	t.Parallel()
	empty := &policy.Input{}
	for _, attribute := range ofMissing {
		for _, source := range []string{
			attribute, "!(" + attribute + ")", attribute + " || !(" + attribute + ")", attribute + " ? true : true",
			"true && !(" + attribute + ")", "[1].exists(i, !(" + attribute + "))", "!(" + attribute + " && true)",
		} {
			if allowed, err := eval(t, source, empty); allowed || err == nil {
				t.Errorf("%s = %v, %v", source, allowed, err)
			}
		}
	}
	for source, want := range map[string]bool{
		// Documented: another side that is true by itself makes up for it.
		`tenant == 'x' || true`:                          true,
		`has(user.groups)`:                               false,
		`!has(user.groups) || 'x' in user.groups`:        true,
		`has(user.groups) && 'x' in user.groups`:         false,
		`has(request.headers)`:                           false,
		`has(request.query) && size(request.query) == 0`: true,

		`has(user.acr) || has(user.provider) || has(user.amr) || has(user.auth_time) || has(user.roles) || has(user.permissions)`: false,
		`has(client.owner) || has(client.plan) || has(passport.bound) || has(request.target)`:                                     false,
		`has(request.body) || has(data.limits)`: false,
	} {
		if got, err := eval(t, source, empty); err != nil || got != want {
			t.Errorf("%s = %v, %v, want %v", source, got, err, want)
		}
	}
}

func TestUnreadableDenies(t *testing.T) {
	t.Parallel()
	in := full()
	in.Request.Headers = func() map[string][]string {
		return map[string][]string{"x-role": {"user"}, "x": {"\xc3\x28"}}
	}
	in.Request.Query = "a=%zz"
	for _, source := range []string{
		`!('admin' in request.headers['x-role'])`, `!('x' in request.headers)`, `!request.headers['x'][0].matches('a')`,
		`!('b' in request.query)`, `size(request.query) == 0`,
	} {
		if allowed, err := eval(t, source, in); allowed || err == nil {
			t.Errorf("%s = %v, %v", source, allowed, err)
		}
	}
	for _, query := range []string{"a;b", "a=%ff", "%ff=a", "a=1#b", "#"} {
		in := full()
		in.Request.Query = query
		if allowed, err := eval(t, `!('b' in request.query)`, in); allowed || err == nil {
			t.Errorf("query %s: %v, %v", query, allowed, err)
		}
	}
}

func TestCompileFaults(t *testing.T) {
	t.Parallel()
	for source, want := range map[string][]mesh.ExpressionFault{
		`'sales' in user.grups`:    {{Line: 1, Column: 16, Message: "undefined field 'grups'"}},
		"true &&\n  usr.id == 'a'": {{Line: 2, Column: 3, Message: "undeclared reference to 'usr' (did you mean 'user'?)"}},
		`user.id`:                  {{Line: 1, Column: 1, Message: "must be true or false, but is of type string"}},
		`params`:                   {{Line: 1, Column: 1, Message: "must be true or false, but is of type map(string, string)"}},
		`user.id.matches(tenant)`: {
			{Line: 1, Column: 17, Message: "the pattern of matches must be written out"},
		},
		`matches(user.id, 'a' + tenant)`: {
			{Line: 1, Column: 22, Message: "the pattern of matches must be written out"},
		},
	} {
		if diff := cmp.Diff(want, policy.Check(anywhere(source))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", source, diff)
		}
	}
	for _, source := range []string{
		``, ` `, `true)`, `user == 'alice'`, `user.id == 1`, `'a' in user.id`, `1`, `"true"`, `null`, `dyn(true)`,
		`caller in ['a']`, `user.id.matches('(')`, `user.id.matches('(a{1000}){1000}')`, `user.id.matches('a{900}b{900}c{900}')`, `unknown()`, `tenant" || true || "`,
		`user.groups.all(a, user.groups.all(b, user.groups.all(c, a != b && b != c)))`,
		`user.groups.all(a, request.headers.all(h, request.headers[h].all(l, l != a)))`,
		strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100),
		"true" + strings.Repeat(" || true", 10_000), `'` + strings.Repeat("a", 10<<20) + `' == tenant`,
	} {
		if faults := policy.Check(anywhere(source)); len(faults) == 0 {
			t.Errorf("%.60s: no fault", source)
		}
	}
	for _, source := range []string{
		`user.groups.exists(g, g == tenant)`, `user.groups.exists(g, g.matches('^sales-[a-z]+$'))`,
		`request.headers.all(h, h != 'x-debug')`, `request.path.matches('^/a/[0-9a-f]{8}(-[0-9a-f]{4}){3}$')`,
		`request.headers['x-role'].exists(r, r in ['admin', 'root'])`,
	} {
		if faults := policy.Check(anywhere(source)); len(faults) > 0 {
			t.Errorf("%s: %v", source, faults)
		}
	}
}

// Requests may be larger than was estimated: the limit at run time holds.
func TestCostIsBoundedAtRunTime(t *testing.T) {
	t.Parallel()
	in := full()
	in.User.Groups = make([]string, 500_000)
	for i := range in.User.Groups {
		in.User.Groups[i] = "g"
	}
	begin := time.Now()
	allowed, err := eval(t, `user.groups.all(g, g != 'x')`, in)
	if allowed || err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("= %v, %v", allowed, err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestCancelledContextDenies(t *testing.T) {
	t.Parallel()
	program, faults := policy.Compile(`user.groups.all(g, g != 'x')`)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	in := full()
	in.User.Groups = make([]string, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if allowed, err := program.Eval(ctx, in); allowed || err == nil {
		t.Errorf("= %v, %v", allowed, err)
	}
}

func TestNothingDenies(t *testing.T) {
	t.Parallel()
	var program *policy.Program
	if allowed, err := program.Eval(t.Context(), full()); allowed || err == nil {
		t.Errorf("no rule: %v, %v", allowed, err)
	}
	if allowed, err := eval(t, "true && user.id == 'a' || true", nil); allowed || err == nil {
		t.Errorf("no input: %v, %v", allowed, err)
	}
}

// losses take something from an input.
var losses = map[string]func(*policy.Input){
	"user":       func(in *policy.Input) { in.User = policy.User{} },
	"tenant":     func(in *policy.Input) { in.Tenant = "" },
	"client":     func(in *policy.Input) { in.Client = policy.Client{} },
	"caller":     func(in *policy.Input) { in.Caller, in.Bound = policy.Caller{}, nil },
	"body":       func(in *policy.Input) { in.Request.Body = nil },
	"request":    func(in *policy.Input) { in.Request = policy.Request{} },
	"everything": func(in *policy.Input) { *in = policy.Input{Tables: in.Tables} },
}

// evil is what rules in this test are against.
func evil() *policy.Input {
	return &policy.Input{
		User:   policy.User{ID: "x", Groups: []string{"x"}, Scopes: []string{"x"}, ACR: "x", AMR: []string{"x"}, Provider: "x", AuthTime: time.Unix(0, 0)},
		Client: policy.Client{ID: "x", Owner: "x", Plan: "x"}, Caller: policy.Caller{ID: "x", Role: "x", Name: "x"}, Tenant: "x",
		Request: policy.Request{
			Method: "x", Path: "x", Host: "x", IP: "10.0.0.1", Query: "a=x&x", Target: "x", Body: []byte(`{"a": "x"}`),
			Headers: func() map[string][]string { return map[string][]string{"a": {"x"}, "x": {"x"}} },
		},
		Params: map[string]string{"id": "x", "a": "x"}, Now: time.Unix(1, 0), Bound: map[string]string{"order": "x", "x": "x"}, Tables: tables,
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(`'sales' in user.groups && request.headers['a'][0].matches('^a+$')`)
	f.Add(`tenant == 'x' || params.a == "`)
	for _, missing := range ofMissing {
		f.Add("!(" + missing + ")")
		f.Add("user.id == 'alice' || " + missing)
	}
	f.Fuzz(func(t *testing.T, source string) {
		program, faults := policy.Compile(source)
		if (program == nil) == (len(faults) == 0) {
			t.Fatalf("program %v, faults %v", program, faults)
		}
		for _, fault := range faults {
			if fault.Line < 1 || fault.Column < 1 || fault.Message == "" {
				t.Errorf("fault %+v", fault)
			}
		}
		if program != nil {
			for _, input := range []func() *policy.Input{full, evil} {
				losesNothing(t, source, input)
			}
		}
	})
}

// losesNothing fails if a rule lets in by something that is not there, and might
// say no if it were; or if both the rule and its opposite let in.
func losesNothing(t *testing.T, source string, input func() *policy.Input) {
	t.Helper()
	rule, _ := policy.Compile(source)
	opposite, _ := policy.Compile("!(" + source + "\n)")
	with, err := rule.Eval(t.Context(), input())
	if err != nil && strings.Contains(err.Error(), "limit") {
		return
	}
	for name, lose := range losses {
		lost := func() *policy.Input {
			in := input()
			lose(in)
			return in
		}
		without, _ := rule.Eval(t.Context(), lost())
		if without && !with && !strings.Contains(source, "has") {
			t.Errorf("without %s it lets in, and with it not", name)
		}
		if opposed, _ := opposite.Eval(t.Context(), lost()); without && opposed {
			t.Errorf("without %s it lets in, and so does its opposite", name)
		}
	}
}

func BenchmarkEval(b *testing.B) {
	program, faults := policy.Compile(`'sales' in user.groups && tenant == 'acme'`)
	if len(faults) > 0 {
		b.Fatal(faults)
	}
	in := full()
	b.ReportAllocs()
	for b.Loop() {
		if allowed, err := program.Eval(b.Context(), in); !allowed {
			b.Fatal(err)
		}
	}
}
