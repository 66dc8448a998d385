package mesh_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/mesh"
)

func TestParsePatternErrors(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"":                                     `must start with "/"`,
		"orders":                               `must start with "/"`,
		"/orders//lines":                       `must not have an empty segment ("//")`,
		"/orders//**":                          `must not have an empty segment ("//")`,
		"//":                                   `must not have an empty segment ("//")`,
		"/orders/../x":                         "must not have a dot segment",
		"/orders/.":                            "must not have a dot segment",
		"/orders/*":                            `segment "*" has a "*": write {name} for any one segment, or end in /** for all below`,
		"/**/orders":                           `segment "**" has a "*": write {name} for any one segment, or end in /** for all below`,
		"/orders?x":                            `segment "orders?x" has a '?': only the path is matched, without query`,
		"/orders/{id":                          `segment "{id" must be wholly a variable, such as {id}`,
		"/orders/{id}.json":                    `segment "{id}.json" must be wholly a variable, such as {id}`,
		"/orders/{}":                           `segment "{}" must be wholly a variable, such as {id}`,
		"/orders/{a-b}":                        `segment "{a-b}" must be wholly a variable, such as {id}`,
		"/orders/{id}/{id}":                    "variable {id} stands twice in it: rename one",
		"/gr\u00f6\u00dfe":                     "segment \"gr\u00f6\u00dfe\" is not in its canonical form: write gr%C3%B6%C3%9Fe",
		"/a b":                                 `segment "a b" is not in its canonical form: write a%20b`,
		"/a%3ab":                               `segment "a%3ab" is not in its canonical form: write a:b`,
		"/%41":                                 `segment "%41" is not in its canonical form: write A`,
		"/a;b":                                 `segment "a;b" is not in its canonical form: no request with it is let in`,
		"/a%2Fb":                               `segment "a%2Fb" is not in its canonical form: no request with it is let in`,
		"/a%":                                  `segment "a%" is not in its canonical form: no request with it is let in`,
		"/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}": "must have at most 8 variables",
		"/" + strings.Repeat("a", 512):         "must be at most 512 bytes long",
	} {
		t.Run(pattern, func(t *testing.T) {
			t.Parallel()
			p, err := mesh.ParsePattern(pattern)
			if err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
			if !p.IsZero() {
				t.Errorf("got %q beside the error", p)
			}
		})
	}
}

func TestMustPatternPanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if got := recover(); got != `pattern "x": must start with "/"` {
			t.Errorf("panicked with %v", got)
		}
	}()
	mesh.MustPattern("x")
}

func TestPatternMatch(t *testing.T) {
	t.Parallel()
	type params = map[string]string
	for _, tt := range []struct {
		pattern, path string
		want          params
		ok            bool
	}{
		{"/", "/", nil, true},
		{"/", "/a", nil, false},
		{"/", "", nil, false},
		{"/**", "/", nil, true},
		{"/**", "/a/b/", nil, true},
		{"/**", "", nil, false},
		{"/orders", "/orders", nil, true},
		{"/orders", "/orders/", nil, false},
		{"/orders", "/Orders", nil, false},
		{"/orders", "/orders2", nil, false},
		{"/orders/", "/orders/", nil, true},
		{"/orders/", "/orders", nil, false},
		{"/orders/**", "/orders", nil, true},
		{"/orders/**", "/orders/", nil, true},
		{"/orders/**", "/orders/a/b", nil, true},
		{"/orders/**", "/ordersx", nil, false},
		{"/a.b", "/axb", nil, false},
		{"/orders/{id}", "/orders/7", params{"id": "7"}, true},
		{"/orders/{id}", "/orders/", nil, false},
		{"/orders/{id}", "/orders/7/", nil, false},
		{"/orders/{id}", "/orders/7/8", nil, false},
		{"/orders/{id}", "/orders/a%40b%20c", params{"id": "a@b c"}, true},
		{"/orders/{id}", "/orders/%zz", nil, false},
		{"/{a}/x/{b}/**", "/1/x/2/3/4", params{"a": "1", "b": "2"}, true},
		{"/{a}/x/{b}/**", "/1/y/2/3/4", nil, false},
		{"/orders:batch", "/orders:batch", nil, true},
		{"/orders:batch", "/orders%3Abatch", nil, true},
		{"/gr%C3%B6n", "/gr%C3%B6n", nil, true},
		{"/gr%C3%B6n", "/gr%C3%B6%6E", nil, false},
	} {
		t.Run(tt.pattern+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			p := mesh.MustPattern(tt.pattern)
			got, ok := p.Match(tt.path)
			if diff := cmp.Diff(tt.want, got); diff != "" || ok != tt.ok {
				t.Errorf("ok = %v, want %v; params (-want +got):\n%s", ok, tt.ok, diff)
			}
			if mesh.IsCanonicalPath(tt.path) && fullMatch(t, p, tt.path) != tt.ok {
				t.Errorf("Regexp() = %s disagrees", p.Regexp())
			}
		})
	}
}

func TestZeroPattern(t *testing.T) {
	t.Parallel()
	var zero mesh.Pattern
	if _, ok := zero.Match("/"); ok || !zero.IsZero() || fullMatch(t, zero, "/") {
		t.Error("the zero pattern matches /")
	}
	if _, ok := mesh.Intersect(zero, mesh.MustPattern("/**")); ok {
		t.Error("the zero pattern shares paths with /**")
	}
	if _, ok := zero.Literal(); ok {
		t.Error("the zero pattern has a literal")
	}
}

func TestPatternProperties(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, literal, withoutRest string
		rest                          bool
		variables                     []string
	}{
		{"/", "/", "/", false, nil},
		{"/orders", "/orders", "/orders", false, nil},
		{"/orders:batch", "", "/orders:batch", false, nil},
		{"/**", "", "", true, nil},
		{"/orders/{id}/{line}", "", "/orders/{id}/{line}", false, []string{"id", "line"}},
		{"/orders/{id}/**", "", "/orders/{id}", true, []string{"id"}},
	} {
		t.Run(tt.pattern, func(t *testing.T) {
			t.Parallel()
			p := mesh.MustPattern(tt.pattern)
			literal, ok := p.Literal()
			if literal != tt.literal || ok != (tt.literal != "") {
				t.Errorf("Literal() = %q, %v, want %q", literal, ok, tt.literal)
			}
			if got := p.WithoutRest().String(); got != tt.withoutRest {
				t.Errorf("WithoutRest() = %q, want %q", got, tt.withoutRest)
			}
			if p.HasRest() != tt.rest {
				t.Errorf("HasRest() = %v", p.HasRest())
			}
			if diff := cmp.Diff(tt.variables, p.Variables()); diff != "" {
				t.Errorf("Variables() (-want +got):\n%s", diff)
			}
			if p.String() != tt.pattern || !p.Equal(mesh.MustPattern(tt.pattern)) {
				t.Errorf("String() = %q", p)
			}
		})
	}
}

func TestPatternSubstitute(t *testing.T) {
	t.Parallel()
	p := mesh.MustPattern("/service/{service}/{id}/**").Substitute(map[string]string{"service": "orders"})
	if got, want := p.String(), "/service/orders/{id}/**"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	defer func() {
		if recover() == nil {
			t.Error("a value with a slash does not panic")
		}
	}()
	p.Substitute(map[string]string{"id": "/x"})
}

func TestIntersect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ a, b, want string }{
		{"/", "/", "/"},
		{"/", "/**", "/"},
		{"/**", "/**", "/**"},
		{"/**", "/orders/{id}", "/orders/{id}"},
		{"/orders/**", "/orders", "/orders"},
		{"/orders/**", "/orders/", "/orders/"},
		{"/orders/**", "/orders/{id}/**", "/orders/{id}/**"},
		{"/orders/**", "/payments/**", ""},
		{"/orders/{id}", "/orders/new", "/orders/new"},
		{"/orders/{id}", "/orders/", ""},
		{"/orders/{id}", "/orders", ""},
		{"/orders/{id}", "/{service}/7", "/orders/7"},
		{"/a/{x}/**", "/a/{y}/{x}", "/a/{x}/{x_}"},
		{"/{x}/b", "/{x}/c", ""},
	} {
		t.Run(tt.a+" "+tt.b, func(t *testing.T) {
			t.Parallel()
			a, b := mesh.MustPattern(tt.a), mesh.MustPattern(tt.b)
			got, ok := mesh.Intersect(a, b)
			if got.String() != tt.want || ok != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, ok, tt.want)
			}
			mirrored, ok2 := mesh.Intersect(b, a)
			if ok2 != ok || mirrored.Regexp() != got.Regexp() {
				t.Errorf("the other way round got %q", mirrored)
			}
		})
	}
}

func TestMethodMatches(t *testing.T) {
	t.Parallel()
	for routes, methods := range map[string][]string{"": {"GET", "HEAD", "POST", ""}, "GET": {"GET", "HEAD"}, "HEAD": {"HEAD"}, "POST": {"POST"}} {
		for _, method := range []string{"", "GET", "HEAD", "POST", "get"} {
			if got, want := mesh.MethodMatches(routes, method), routes == "" || slices.Contains(methods, method); got != want {
				t.Errorf("a route for %q takes %q: %v", routes, method, got)
			}
		}
	}
}

func TestPatternCovers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		p, q string
		want bool
	}{
		{"/orders/{id}", "/orders/new", true},
		{"/orders/{id}", "/orders/{other}", true},
		{"/orders/**", "/orders", true},
		{"/orders/new", "/orders/{id}", false},
		{"/orders/{id}", "/orders/{id}/**", false},
		{"/orders", "/payments", false},
	} {
		if got := mesh.MustPattern(tt.p).Covers(mesh.MustPattern(tt.q)); got != tt.want {
			t.Errorf("%s covers %s: %v", tt.p, tt.q, got)
		}
	}
}

func TestPatternRewrite(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ from, to, path, want string }{
		{"/service/orders/**", "/**", "/service/orders", "/"},
		{"/service/orders/**", "/**", "/service/orders/", "/"},
		{"/service/orders/**", "/**", "/service/orders/7/lines", "/7/lines"},
		{"/api/**", "/v1/**", "/api", "/v1"},
		{"/api/**", "/v1/**", "/api/", "/v1/"},
		{"/api/**", "/v1/**", "/api/x/api/y", "/v1/x/api/y"},
		{"/**", "/v1/**", "/", "/v1/"},
		{"/**", "/v1/**", "/a/b", "/v1/a/b"},
		{"/**", "/**", "/a/b", "/a/b"},
		{"/{region}/{shop}/**", "/shops/{shop}/in/{region}/**", "/eu/7/x", "/shops/7/in/eu/x"},
		{"/a:b/**", "/c/**", "/a%3Ab/x", "/c/x"},
	} {
		t.Run(tt.from+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			expression, substitution := mesh.MustPattern(tt.from).Rewrite(mesh.MustPattern(tt.to))
			if got := substitute(expression, substitution, tt.path); got != tt.want {
				t.Errorf("got %q, want %q (%s, %s)", got, tt.want, expression, substitution)
			}
		})
	}
}

func TestPatternUnrewrite(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to, route string
		want            []string
	}{
		{"/service/orders/**", "/**", "/orders/{id}", []string{"/service/orders/orders/{id}"}},
		{"/service/orders/**", "/**", "/", []string{"/service/orders/", "/service/orders"}},
		{"/service/orders/**", "/**", "/**", []string{"/service/orders/**"}},
		{"/api/**", "/v1/**", "/v1/orders", []string{"/api/orders"}},
		{"/api/**", "/v1/**", "/v1", []string{"/api"}},
		{"/api/**", "/v1/**", "/v1/", []string{"/api/"}},
		{"/api/**", "/v1/**", "/v2/orders", nil},
		{"/**", "/v1/**", "/v1", nil},
		{"/**", "/v1/**", "/v1/", []string{"/"}},
		{"/{a}/x/**", "/{a}/**", "/orders/{b}", []string{"/orders/x/{b}"}},
		{"/{a}/x/**", "/{a}/**", "/{b}/{a}", []string{"/{a}/x/{a_}"}},
	} {
		t.Run(tt.from+" "+tt.route, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, p := range mesh.MustPattern(tt.from).Unrewrite(mesh.MustPattern(tt.to), mesh.MustPattern(tt.route)) {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// substitute does what Envoy's regex_rewrite does.
func substitute(expression, substitution, path string) string {
	template := regexp.MustCompile(`\\(\d)`).ReplaceAllString(substitution, "$${$1}")
	return regexp.MustCompile(expression).ReplaceAllString(path, template)
}

func fullMatch(t *testing.T, p mesh.Pattern, path string) bool {
	t.Helper()
	expression, err := regexp.Compile("^(?:" + p.Regexp() + ")$")
	if err != nil {
		t.Fatal(err)
	}
	return expression.MatchString(path)
}

func FuzzPattern(f *testing.F) {
	f.Add("/orders/{id}/**", "/orders/7/x")
	f.Add("/a:b", "/a%3Ab")
	f.Add("/**", "/")
	f.Add("/a//**", "/a//")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		p, err := mesh.ParsePattern(pattern)
		if err != nil {
			return
		}
		if prefix := p.WithoutRest().String(); len(p.Variables()) == 0 && prefix != "" && !mesh.IsCanonicalPath(prefix) {
			t.Fatalf("%q is not canonical", pattern)
		}
		_, ok := p.Match(path)
		if mesh.IsCanonicalPath(path) && ok != fullMatch(t, p, path) {
			t.Fatalf("%q matches %q: %v, but %s does not agree", pattern, path, ok, p.Regexp())
		}
		if literal, single := p.Literal(); single && ok != (path == literal) {
			t.Fatalf("%q matches %q: %v, but is the literal %q", pattern, path, ok, literal)
		}
	})
}

func FuzzIntersect(f *testing.F) {
	f.Add("/orders/{id}/**", "/{a}/7", "/orders/7")
	f.Add("/{a}/**", "/**", "/a/")
	f.Fuzz(func(t *testing.T, a, b, path string) {
		p, err := mesh.ParsePattern(a)
		q, err2 := mesh.ParsePattern(b)
		if err != nil || err2 != nil || !mesh.IsCanonicalPath(path) {
			return
		}
		_, inP := p.Match(path)
		_, inQ := q.Match(path)
		both, _ := mesh.Intersect(p, q)
		if _, inBoth := both.Match(path); inBoth != (inP && inQ) {
			t.Fatalf("%q is matched by %q: %v, by %q: %v, by %q: %v", path, a, inP, b, inQ, both, inBoth)
		}
		if p.Covers(q) && inQ && !inP {
			t.Fatalf("%q covers %q, but not for %q", a, b, path)
		}
	})
}

func FuzzUnrewrite(f *testing.F) {
	f.Add("/api/{a}/**", "/{a}/**", "/x/{id}", "/api/x/7")
	f.Fuzz(func(t *testing.T, from, to, route, path string) {
		p, err := mesh.ParsePattern(from)
		q, err2 := mesh.ParsePattern(to)
		r, err3 := mesh.ParsePattern(route)
		if err != nil || err2 != nil || err3 != nil || !p.HasRest() || !q.HasRest() || !mesh.IsCanonicalPath(path) {
			return
		}
		for _, name := range q.Variables() {
			if !slices.Contains(p.Variables(), name) {
				return
			}
		}
		if _, ok := p.Match(path); !ok {
			return
		}
		expression, substitution := p.Rewrite(q)
		rewritten := substitute(expression, substitution, path)
		_, want := r.Match(rewritten)
		got := false
		for _, u := range p.Unrewrite(q, r) {
			_, ok := u.Match(path)
			got = got || ok
		}
		if got != want {
			t.Fatalf("%q becomes %q, which %q matches: %v, unrewritten: %v", path, rewritten, route, want, got)
		}
	})
}

func BenchmarkPatternMatch(b *testing.B) {
	p := mesh.MustPattern("/service/orders/**")
	b.ReportAllocs()
	for b.Loop() {
		p.Match("/service/orders/0b9c7c2e/lines")
	}
}
