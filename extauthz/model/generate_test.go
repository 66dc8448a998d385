package model_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// generator makes up documents.
type generator struct{ *rand.Rand }

// chance is true once in n times.
func (g generator) chance(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

// some returns a part of a list, in its order.
func some[T any](g generator, list ...T) []T {
	var part []T
	for _, item := range list {
		if g.chance(2) {
			part = append(part, item)
		}
	}
	return part
}

func (g generator) documents(now time.Time) *documents {
	d := &documents{}
	for _, name := range []string{"staff", "partners"} {
		d.providers = append(d.providers, g.provider(name))
	}
	for _, name := range []string{"people", "machines"} {
		d.users = append(d.users, g.users(name))
	}
	for _, id := range []string{"web", "mobile", "batch"} {
		if id == "web" || g.chance(2) {
			d.clients = append(d.clients, client{
				id: id, owner: pick(g, "ops", "sales"), plan: pick(g, "gold", "free", ""), tenant: pick(g, "acme", "", "", ""),
				apis: some(g, "orders", "billing"), active: !g.chance(8),
			})
		}
	}
	for _, id := range keyIDs[:g.IntN(len(keyIDs))] {
		k := apiKey{
			id: id, client: pick(g, d.clients...).id, owner: pick(g, "alice", "robot"), tenant: pick(g, "acme", "globex", ""),
			scopes: some(g, "read", "write"), revoked: g.chance(8),
		}
		if g.chance(3) {
			k.expires = now.Truncate(time.Second).Add(time.Duration(g.IntN(40)-5) * time.Second)
		}
		d.apiKeys = append(d.apiKeys, k)
	}
	if !g.chance(3) {
		d.roles = []role{
			{name: "clerk", groups: some(g, "sales", "support"), permissions: some(g, "orders.read", "orders.write")},
			{name: "boss", groups: some(g, "admins", "sales"), includes: pick(g, nil, []string{"clerk"}, []string{"clerk"}), permissions: some(g, "orders.delete")},
		}
	}
	if g.chance(2) {
		d.data = map[string]int{"acme": 100, "globex": 5}
	}
	d.gateway, d.service = g.gateway(d), g.service(d)
	return d
}

var keyIDs = []string{"aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"}

func (g generator) provider(name string) provider {
	p := provider{
		name: name, issuer: "https://" + name + ".test", audiences: pick(g, []string{"shop-api"}, []string{"shop-api", "legacy-api"}),
		clients: pick(g, nil, []string{"web"}, []string{"web", "mobile"}, []string{"web", "mobile"}),
		skew:    pick(g, 0, 30*time.Second, 30*time.Second), user: pick(g, "", "", "", "email", "/who/id"),
		longestLife: pick(g, 0, 0, 0, 2*time.Minute), groups: pick(g, "", "", "/realm/roles"), tenant: pick(g, "", "tenant", "tenant"), client: pick(g, "", "", "", "app"), opaque: g.chance(8),
	}
	if p.tenant != "" {
		p.tenants = pick(g, nil, nil, []string{"acme"}, []string{"acme", "globex"}, []string{"globex"})
	}
	return p
}

func (g generator) users(name string) users {
	u := users{name: name}
	for _, user_ := range userNames {
		if user_ == "alice" || g.chance(2) {
			u.list = append(u.list, user{
				name: user_, tenant: pick(g, "acme", "globex", "", ""), groups: pick(g, nil, []string{"sales"}, []string{"sales", "admins"}), disabled: g.chance(8),
			})
		}
	}
	return u
}

// authenticate demands something, nil in one of n times: nothing then that is
// not demanded already.
func (g generator) authenticate(d *documents, gateway bool, n int) *authenticate {
	if g.chance(n) {
		return nil
	}
	a := &authenticate{}
	if !g.chance(8) {
		for range pick(g, 1, 1, 1, 2, 3) {
			a.anyOf = append(a.anyOf, g.credentials(d, gateway))
		}
		a.anonymous = g.chance(8)
	} else {
		a.anonymous = g.chance(2)
	}
	if g.chance(10) {
		a.acr = pick(g, []string{"high"}, []string{"high", "medium"})
	}
	if g.chance(12) {
		a.amr = pick(g, []string{"otp"}, []string{"pwd", "otp"})
	}
	if g.chance(10) {
		a.maxAge = pick(g, 10*time.Second, time.Minute)
	}
	if g.chance(2) {
		a.notNeeded = new(g.chance(2))
	}
	if gateway && g.chance(5) {
		a.registered = new(!g.chance(4))
	}
	if gateway && g.chance(8) {
		a.introspect = new(!g.chance(4))
	}
	return a
}

// under is a below base: documents in which whoever shows nothing gets around
// what is demanded of others do not validate.
func (a *authenticate) under(base *authenticate) *authenticate {
	if a == nil {
		return nil
	}
	d := demand{}.with(base).with(a)
	demands := func(d demand) bool { return d.acr != nil || d.amr != nil || d.maxAge != 0 || d.registered }
	switch alone := a.anonymous && a.anyOf == nil; {
	case !d.anonymous || !demands(d):
	case demands(demand{}.with(base)) && !alone:
		a.anonymous = false
	default:
		a.acr, a.amr, a.maxAge, a.registered = nil, nil, 0, nil
	}
	return a
}

func (g generator) credentials(d *documents, gateway bool) (c credentials) {
	for c.kinds() == nil {
		p := pick(g, d.providers...)
		if g.chance(2) {
			c.accessToken = p.name
		} else if g.chance(4) {
			c.basic = pick(g, "people", "people", "people", "people", "people", "machines")
		}
		if p.clients != nil && (gateway || c.basic == "") && g.chance(4) {
			c.idToken = p.name
		}
		c.apiKey, c.certificate = g.chance(6), g.chance(6)
		if c.certificate && gateway {
			c.names, c.subjects = some(g, certificateNames...), some(g, "CN=till,O=Partner", "CN=other,O=Partner")
			if len(c.names)+len(c.subjects) == 0 {
				c.names = []string{"spiffe://partner.example/till"}
			}
		}
	}
	return c
}

var certificateNames = []string{"spiffe://partner.example/till", "till.partner.example", "till@partner.example"}

// patterns of routes, each below a prefix of its own.
var patterns = []string{"", "/{id}", "/{id}", "/{id}/lines", "/**", "/x@y/{id}", "/{service}/**", "/{service}/{id}"}

// place is where an expression stands: there are faults of documents that read
// what is never there.
type place struct {
	gateway, body, data bool
	path                string
}

func (p place) has(source string) bool {
	for part, there := range map[string]bool{
		"params.id": strings.Contains(p.path, "{id}"), "request.body": p.body, "data.": p.data,
		"passport.": !p.gateway, "caller.": !p.gateway, "client.plan": p.gateway, "client.owner": p.gateway,
	} {
		if strings.Contains(source, part) && !there {
			return false
		}
	}
	return true
}

func (g generator) rule(at place, more ...rule) rule {
	if g.chance(2) {
		return rules[0] // or else hardly anything is allowed
	}
	more = append(more, rules...)
	if at.body {
		more = append(more, bodyRules...)
	}
	for {
		if r := pick(g, more...); at.has(r.source) {
			return r
		}
	}
}

func (g generator) binding(at place) binding {
	for {
		if b := pick(g, bindings...); at.has(b.source) {
			return b
		}
	}
}

func (g generator) gateway(d *documents) gateway {
	gw := gateway{
		name: "public", authenticate: g.authenticate(d, true, 20).under(nil), denyStatus: pick(g, 0, 0, 0, 403), data: d.data != nil && g.chance(2), maxStaleness: pick(g, 0, 0, 10*time.Second),
		tenants: pick(g, nil, nil, []string{"acme"}, []string{"acme", "globex"}),
	}
	for i := range 2 + g.IntN(4) {
		r := gatewayRoute{
			name: pick(g, "", fmt.Sprint("route-", 10+i)), method: pick(g, "", "", "GET", "POST", "HEAD"), path: fmt.Sprint("/r", i, pick(g, patterns...)),
			authenticate: g.authenticate(d, true, 2).under(gw.authenticate), to: pick(g, "orders", "billing"), body: g.chance(4),
		}
		if strings.Contains(r.path, "{service}") {
			r.to = "{service}"
		}
		at := place{true, r.body, gw.data, r.path}
		if g.chance(2) {
			r.allow = new(g.rule(at, tableRules...))
		}
		if g.chance(4) {
			r.bind = map[string]binding{"order": g.binding(at)}
			if g.chance(3) {
				r.bind["more"] = g.binding(at)
			}
		}
		gw.routes = append(gw.routes, r)
	}
	if g.chance(3) {
		gw.routes = append(gw.routes, gatewayRoute{name: "rest", path: "/**", to: "orders", authenticate: g.authenticate(d, true, 2).under(gw.authenticate)})
	}
	return gw
}

func (g generator) service(d *documents) service {
	s := service{
		name: "orders", permissive: g.chance(3), gateways: pick(g, nil, []string{"public"}, []string{"partner", "public"}),
		authenticate: g.authenticate(d, false, 2).under(nil), denyStatus: pick(g, 0, 0, 0, 403), data: d.data != nil && g.chance(2), maxStaleness: pick(g, 0, 0, 10*time.Second),
	}
	s.clear = s.permissive && g.chance(2)
	callers := []string{"public", "web", "batch"}
	if !slices.Equal(s.gateways, []string{"public"}) {
		callers = append(callers, "partner")
	}
	for i := range 2 + g.IntN(4) {
		r := serviceRoute{
			name: pick(g, "", fmt.Sprint("route-", 10+i)), method: pick(g, "", "", "GET", "POST", "HEAD"), path: fmt.Sprint("/r", i, pick(g, patterns[:6]...)),
			callers: some(g, callers...), authenticate: g.authenticate(d, false, 2).under(s.authenticate), body: g.chance(4),
		}
		nobody := demand{}.with(s.authenticate).with(r.authenticate).admitsNobody()
		r.plaintext = s.permissive && (s.clear || nobody) && g.chance(2)
		r.allow = g.rule(place{false, r.body, s.data, r.path}, serviceRules...)
		s.routes = append(s.routes, r)
	}
	return s
}

// bodyRules are more likely where there are bodies.
var bodyRules = slices.Repeat(slices.DeleteFunc(slices.Clone(rules), func(r rule) bool {
	return !strings.Contains(r.source, "request.body")
}), 6)

// tableRules are more likely than others, since hardly a user is in the table.
var tableRules = slices.Repeat(slices.DeleteFunc(slices.Clone(rules), func(r rule) bool {
	return !strings.Contains(r.source, "permissions") && !strings.Contains(r.source, "roles")
}), 3)

// serviceRules are more likely at services, which alone have what they read.
var serviceRules = slices.Repeat(slices.DeleteFunc(slices.Clone(rules), func(r rule) bool {
	return !strings.HasPrefix(r.source, "passport") && !strings.HasPrefix(r.source, "caller")
}), 4)

func (g generator) knowledge(d *documents, now time.Time) knowledge {
	k := knowledge{
		keys: map[string][]*key{}, usable: map[string]time.Time{}, unknown: map[string]bool{}, noSigner: g.chance(40),
		noTrust: g.chance(40),
	}
	for _, p := range d.providers {
		if g.chance(30) {
			continue
		}
		k.keys[p.name] = pick(g, []*key{k1, k2}, []*key{k1, k2}, []*key{k1}, []*key{k1, k2, k3}, []*key{k2, k3}, []*key{k1, k2}, []*key{k1, k2}, []*key{k1, k2}, nil)
		k.usable[p.name] = longTime
		if g.chance(6) {
			k.usable[p.name] = now.Truncate(time.Second).Add(time.Duration(g.IntN(20)) * time.Second)
		}
	}
	for _, kind := range []string{"clients", "keys", "users"} {
		k.unknown[kind] = g.chance(40)
	}
	k.passportKeys = map[string][]passportKey{}
	for gateway, own := range map[string]*key{"public": publicKey, "partner": partnerKey} {
		if g.chance(20) {
			continue
		}
		one := passportKey{
			key: own, providers: pick(g, allSources, allSources, allSources, allSources, []string{"staff"}, []string{"partners", "chancery:api-keys"}),
			tenants: pick(g, nil, nil, nil, []string{"acme"}, []string{"acme", "globex"}, []string{}),
		}
		if g.chance(4) {
			one.until = now.Truncate(time.Second).Add(time.Duration(g.IntN(20)-7) * time.Second)
		}
		k.passportKeys[gateway] = []passportKey{one}
	}
	k.heard = now.Add(-pick(g, 0, 0, 0, 0, 8*time.Second))
	k.noRevocations = g.chance(40)
	for range pick(g, 0, 0, 1, 2) {
		k.revocations = append(k.revocations, g.revocation(now))
	}
	if g.chance(8) {
		k.revoked = []certificate{newCertificate("spiffe://shop.example/gateway/public")}
	}
	return k
}

func (g generator) revocation(now time.Time) revocation {
	r := revocation{
		kind: pick(g, "subject", "token", "client", "tenant"), providers: pick(g, nil, []string{"staff"}, []string{"staff", "partners"}),
		before:  now.Truncate(time.Second).Add(-pick(g, 0, 3*time.Second, 10*time.Second, 11*time.Second, time.Hour)),
		expires: now.Truncate(time.Second).Add(time.Duration(g.IntN(60)-5) * time.Second),
	}
	r.value = map[string]string{
		"subject": pick(g, "alice", "bob", "alice@corp.test", "robot"), "token": pick(g, "t-1", "id-1", keyIDs[0]),
		"client": pick(g, "web", "mobile", "batch"), "tenant": pick(g, "globex", "acme", "evil"),
	}[r.kind]
	return r
}

var allSources = []string{
	"staff", "partners", "chancery:users/people", "chancery:users/machines", "chancery:api-keys", "chancery:certificates",
}
