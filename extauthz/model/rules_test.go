package model_test

import (
	"slices"
	"strings"
	"time"
)

// truth is what an expression comes to.
type truth int

const (
	no truth = iota
	yes
	cannotTell
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

func not(a truth) truth {
	switch a {
	case yes:
		return no
	case no:
		return yes
	}
	return cannotTell
}

// and is false where either side is, whatever the other.
func and(a, b truth) truth {
	switch {
	case a == no || b == no:
		return no
	case a == yes && b == yes:
		return yes
	}
	return cannotTell
}

func or(a, b truth) truth { return not(and(not(a), not(b))) }

// facts are what rules read. Empty strings, nil slices and nil maps are missing.
type facts struct {
	user, acr, tenant, provider   string
	groups, scopes, amr           []string
	authTime                      time.Time
	client, clientOwner, plan     string
	callerID, callerRole, caller  string
	method, path, rawPath, target string
	host, ip                      string
	roles                         []string // headers x-role
	params                        map[string]string
	query                         string
	bound                         map[string]string
	now                           time.Time
	// amount is that of the body, if there is one that can be read.
	amount *int
	// documents' own tables.
	tables *documents
	// data says that the rule's document names the data set.
	data bool
}

// is compares a text that must be there.
func is(s, want string) truth {
	if s == "" {
		return cannotTell
	}
	return truthOf(s == want)
}

// has looks into a list that must be there.
func has(list []string, s string) truth {
	if list == nil {
		return cannotTell
	}
	return truthOf(slices.Contains(list, s))
}

// of looks up a member that must be there.
func of(m map[string]string, name, want string) truth {
	value, ok := m[name]
	if !ok {
		return cannotTell
	}
	return truthOf(value == want)
}

// hasRole reads the tables: group → role.
func (f *facts) hasRole(name string) truth {
	if f.groups == nil {
		return cannotTell
	}
	for _, r := range f.tables.roles {
		for _, group := range r.groups {
			if r.name == name && slices.Contains(f.groups, group) {
				return yes
			}
		}
	}
	return no
}

// hasPermission reads the tables: group → role → permissions, and those of the
// roles that it includes.
func (f *facts) hasPermission(permission string) truth {
	if f.groups == nil {
		return cannotTell
	}
	var grants func(name string) bool
	grants = func(name string) bool {
		for _, r := range f.tables.roles {
			if r.name == name && (slices.Contains(r.permissions, permission) || slices.ContainsFunc(r.includes, grants)) {
				return true
			}
		}
		return false
	}
	for _, r := range f.tables.roles {
		if slices.ContainsFunc(r.groups, func(g string) bool { return slices.Contains(f.groups, g) }) && grants(r.name) {
			return yes
		}
	}
	return no
}

// limit is the data set's number of the tenant.
func (f *facts) limit() (int, bool) {
	n, ok := f.tables.data[f.tenant]
	return n, ok && f.data && f.tenant != ""
}

// rule is an expression, and what it means.
type rule struct {
	source string
	means  func(*facts) truth
}

var rules = []rule{
	{"true", func(*facts) truth { return yes }},
	{"false", func(*facts) truth { return no }},
	{"user.id == 'alice'", func(f *facts) truth { return is(f.user, "alice") }},
	{"user.id != 'alice'", func(f *facts) truth { return not(is(f.user, "alice")) }},
	{"'sales' in user.groups", func(f *facts) truth { return has(f.groups, "sales") }},
	{"!('banned' in user.groups)", func(f *facts) truth { return not(has(f.groups, "banned")) }},
	{"has(user.groups) && 'sales' in user.groups", func(f *facts) truth { return and(truthOf(f.groups != nil), has(f.groups, "sales")) }},
	{"tenant == 'acme'", func(f *facts) truth { return is(f.tenant, "acme") }},
	{"!(tenant == 'evil')", func(f *facts) truth { return not(is(f.tenant, "evil")) }},
	{"tenant == 'acme' || user.id == 'alice'", func(f *facts) truth { return or(is(f.tenant, "acme"), is(f.user, "alice")) }},
	{"tenant == 'acme' && user.id == 'alice'", func(f *facts) truth { return and(is(f.tenant, "acme"), is(f.user, "alice")) }},
	{"client.id == 'web'", func(f *facts) truth { return is(f.client, "web") }},
	{"client.plan == 'gold'", func(f *facts) truth { return is(f.plan, "gold") }},
	{"client.owner == 'ops'", func(f *facts) truth { return is(f.clientOwner, "ops") }},
	{"'read' in user.scopes", func(f *facts) truth { return has(f.scopes, "read") }},
	{"user.acr == 'high'", func(f *facts) truth { return is(f.acr, "high") }},
	{"user.provider == 'staff'", func(f *facts) truth { return is(f.provider, "staff") }},
	{"user.provider != 'chancery:api-keys'", func(f *facts) truth { return not(is(f.provider, "chancery:api-keys")) }},
	{"'otp' in user.amr", func(f *facts) truth { return has(f.amr, "otp") }},
	{"now - user.auth_time < duration('60s')", func(f *facts) truth {
		if f.authTime.IsZero() {
			return cannotTell
		}
		return truthOf(f.now.Sub(f.authTime) < time.Minute)
	}},
	{"'clerk' in user.roles", func(f *facts) truth { return f.hasRole("clerk") }},
	{"'orders.read' in user.permissions", func(f *facts) truth { return f.hasPermission("orders.read") }},
	{"!('boss' in user.roles)", func(f *facts) truth { return not(f.hasRole("boss")) }},
	{"params.id == user.id", func(f *facts) truth {
		if f.user == "" {
			return cannotTell
		}
		return of(f.params, "id", f.user)
	}},
	{"params.id == 'alice'", func(f *facts) truth { return of(f.params, "id", "alice") }},
	{"request.method == 'GET'", func(f *facts) truth { return is(f.method, "GET") }},
	{"request.method in ['GET', 'HEAD'] || 'clerk' in user.roles", func(f *facts) truth {
		return or(truthOf(f.method == "GET" || f.method == "HEAD"), f.hasRole("clerk"))
	}},
	{"request.path.startsWith('/r1')", func(f *facts) truth { return truthOf(strings.HasPrefix(f.path, "/r1")) }},
	{"request.path.contains('/x@y')", func(f *facts) truth { return truthOf(strings.Contains(f.path, "/x@y")) }},
	{"!(request.path.contains('@y') || request.path.endsWith('a+b'))", func(f *facts) truth {
		return truthOf(!strings.Contains(f.path, "@y") && !strings.HasSuffix(f.path, "a+b"))
	}},
	{"request.path.endsWith('/' + params.id)", func(f *facts) truth {
		id, ok := f.params["id"]
		if !ok {
			return cannotTell
		}
		return truthOf(strings.HasSuffix(f.path, "/"+id))
	}},
	{"request.raw_path.contains('%40')", func(f *facts) truth { return truthOf(strings.Contains(f.rawPath, "%40")) }},
	{"request.target.contains('debug')", func(f *facts) truth { return truthOf(strings.Contains(f.target, "debug")) }},
	{"request.host == 'api.test'", func(f *facts) truth { return is(f.host, "api.test") }},
	{"request.host != 'api.test'", func(f *facts) truth { return not(is(f.host, "api.test")) }},
	{"request.host == '[::1]'", func(f *facts) truth { return is(f.host, "[::1]") }},
	{"request.ip == '192.0.2.1'", func(f *facts) truth { return is(f.ip, "192.0.2.1") }},
	{"cidr('10.0.0.0/8').containsIP(request.ip)", func(f *facts) truth {
		if f.ip == "" {
			return cannotTell
		}
		return truthOf(strings.HasPrefix(f.ip, "10."))
	}},
	{"'debug' in request.query", func(f *facts) truth {
		if strings.Contains(f.query, ";") || strings.Contains(f.query, "%zz") || strings.Contains(f.query, "#") {
			return cannotTell // what decodes in two ways is missing
		}
		return truthOf(f.query == "debug=1" || f.query == "a=1&debug")
	}},
	{"!('admin' in request.headers['x-role'])", func(f *facts) truth { return not(has(f.roles, "admin")) }},
	{"request.headers['x-role'] == ['clerk']", func(f *facts) truth {
		if f.roles == nil {
			return cannotTell
		}
		return truthOf(slices.Equal(f.roles, []string{"clerk"}))
	}},
	{"request.body.amount < 100", func(f *facts) truth {
		if f.amount == nil {
			return cannotTell
		}
		return truthOf(*f.amount < 100)
	}},
	{"request.body.amount < data.limits[tenant]", func(f *facts) truth {
		limit, ok := f.limit()
		if !ok || f.amount == nil {
			return cannotTell
		}
		return truthOf(*f.amount < limit)
	}},
	{"data.limits[tenant] > 10", func(f *facts) truth {
		limit, ok := f.limit()
		if !ok {
			return cannotTell
		}
		return truthOf(limit > 10)
	}},
	{"passport.bound.order == params.id", func(f *facts) truth {
		id, ok := f.params["id"]
		if !ok {
			return cannotTell
		}
		return of(f.bound, "order", id)
	}},
	{"caller.name == 'web'", func(f *facts) truth { return is(f.caller, "web") }},
	{"caller.role == 'gateway'", func(f *facts) truth { return is(f.callerRole, "gateway") }},
	{"caller.id != 'spiffe://shop.example/gateway/public'", func(f *facts) truth { return not(is(f.callerID, "spiffe://shop.example/gateway/public")) }},
	{"now > timestamp('2000-01-01T00:00:00Z')", func(f *facts) truth { return truthOf(f.now.After(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))) }},
}

// binding is an expression for a text.
type binding struct {
	source string
	// means is empty where there is no text.
	means func(*facts) string
}

var bindings = []binding{
	{"params.id", func(f *facts) string { return f.params["id"] }},
	{"user.id", func(f *facts) string { return f.user }},
	{"tenant", func(f *facts) string { return f.tenant }},
	{"request.method + ' ' + request.path", func(f *facts) string { return f.method + " " + f.path }},
	{"'fixed'", func(*facts) string { return "fixed" }},
	{"client.plan", func(f *facts) string { return f.plan }},
}
