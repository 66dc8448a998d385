package model_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	trustDomain      = "shop.example"
	passportLifetime = 45 * time.Second
)

// documents are those of a mesh, as far as decisions depend on them.
type documents struct {
	providers []provider
	users     []users
	clients   []client
	apiKeys   []apiKey
	roles     []role
	// data is one set, "limits", of numbers by tenant; nil has none.
	data    map[string]int
	gateway gateway
	service service
}

type provider struct {
	name, issuer string
	audiences    []string
	// clients whose ID tokens are accepted; nil accepts none.
	clients              []string
	skew, longestLife    time.Duration
	user, groups, tenant string
	client               string
	opaque               bool
	tenants              []string // nil is any
}

type users struct {
	name string
	list []user
}

type user struct {
	name, tenant string
	groups       []string
	disabled     bool
}

type client struct {
	id, owner, plan, tenant string
	apis                    []string
	active                  bool
}

type apiKey struct {
	id, client, owner, tenant string
	scopes                    []string
	expires                   time.Time
	revoked                   bool
}

type role struct {
	name                          string
	groups, includes, permissions []string
}

type gateway struct {
	name         string
	tenants      []string
	authenticate *authenticate
	denyStatus   int
	maxStaleness time.Duration
	data         bool
	routes       []gatewayRoute
}

type gatewayRoute struct {
	name, method, path, to string
	authenticate           *authenticate
	allow                  *rule
	bind                   map[string]binding
	body                   bool
}

type service struct {
	name         string
	permissive   bool
	clear        bool // Passports may come in the clear
	gateways     []string
	authenticate *authenticate
	denyStatus   int
	maxStaleness time.Duration
	data         bool
	routes       []serviceRoute
}

type serviceRoute struct {
	name, method, path string
	callers            []string
	plaintext          bool
	authenticate       *authenticate
	allow              rule
	body               bool
}

// authenticate is what a document writes; nil and zero are not written.
type authenticate struct {
	anyOf                 []credentials
	anonymous             bool
	introspect            *bool
	acr, amr              []string
	maxAge                time.Duration
	registered, notNeeded *bool // clients: registered; tenant: optional
}

type credentials struct {
	accessToken, idToken, basic string
	apiKey, certificate         bool
	// names and subjects of certificates, at gateways.
	names, subjects []string
}

// form is a document or a part of one.
type form map[string]any

// set leaves out what is zero.
func (f form) set(key string, value any) form {
	switch v := value.(type) {
	case string:
		if v == "" {
			return f
		}
	case bool:
		if !v {
			return f
		}
	case int:
		if v == 0 {
			return f
		}
	case []string:
		if v == nil {
			return f
		}
	case time.Duration:
		if v == 0 {
			return f
		}
		value = v.String()
	case form:
		if v == nil {
			return f
		}
	}
	f[key] = value
	return f
}

// text writes all documents. JSON is YAML.
func (d *documents) text() []byte {
	all := []form{{
		"kind": "Mesh", "name": "shop", "trustDomain": trustDomain,
		"passport": form{"lifetime": passportLifetime.String()},
	}}
	for _, p := range d.providers {
		all = append(all, p.form())
	}
	for _, u := range d.users {
		all = append(all, u.form())
	}
	for _, c := range d.clients {
		all = append(all, form{"kind": "Client", "name": c.id, "owner": c.owner, "active": c.active}.
			set("plan", c.plan).set("tenant", c.tenant).set("apis", c.apis))
	}
	for _, k := range d.apiKeys {
		f := form{"kind": "APIKey", "name": k.id, "client": k.client, "owner": k.owner, "hash": hashOf(k.id)}.
			set("tenant", k.tenant).set("scopes", k.scopes).set("revoked", k.revoked)
		if !k.expires.IsZero() {
			f["expires"] = k.expires.UTC().Format(time.RFC3339)
		}
		all = append(all, f)
	}
	if len(d.roles) > 0 {
		var list []form
		for _, r := range d.roles {
			list = append(list, form{"name": r.name}.
				set("groups", r.groups).set("includes", r.includes).set("permissions", r.permissions))
		}
		all = append(all, form{"kind": "Roles", "name": "roles", "roles": list})
	}
	if d.data != nil {
		all = append(all, form{"kind": "Data", "name": "limits", "values": d.data})
	}
	all = append(all, d.gateway.form(), d.otherGateway(), d.service.form(), callerForm(d.service.name, "web"), callerForm(d.service.name, "batch"))
	if d.service.name != "billing" {
		all = append(all, form{"kind": "Service", "name": "billing", "callers": []string{d.gateway.name}, "routes": []form{
			{"match": form{"path": "/**"}, "allow": "true"},
		}})
	}
	var b bytes.Buffer
	for _, document := range all {
		b.WriteString("---\n")
		if err := json.NewEncoder(&b).Encode(document); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func (p provider) form() form {
	f := form{
		"kind": "IdentityProvider", "name": p.name, "issuer": p.issuer, "audiences": p.audiences, "clockSkew": p.skew.String(),
		"claims":        form{}.set("user", p.user).set("groups", p.groups).set("tenant", p.tenant).set("client", p.client),
		"introspection": form{"client": "pdp", "secret": "pdp", "endpoint": p.issuer + "/introspect"},
	}
	f.set("maxTokenLifetime", p.longestLife).set("tenants", p.tenants)
	if p.clients != nil {
		f["idToken"] = form{"audiences": p.clients}
	}
	if p.opaque {
		f["tokens"] = "opaque"
	}
	return f
}

func (u users) form() form {
	var list []form
	for _, user := range u.list {
		list = append(list, form{"name": user.name, "password": passwordHashes[user.name]}.
			set("groups", user.groups).set("tenant", user.tenant).set("disabled", user.disabled))
	}
	return form{"kind": "Users", "name": u.name, "users": list}
}

func (a *authenticate) form(gateway bool) form {
	if a == nil {
		return nil
	}
	f := form{}.set("anonymous", a.anonymous).set("acr", a.acr).set("amr", a.amr).set("maxAge", a.maxAge)
	var alternatives []form
	for _, c := range a.anyOf {
		alternative := form{}.set("accessToken", c.accessToken).set("idToken", c.idToken).set("basic", c.basic).set("apiKey", c.apiKey)
		if c.certificate {
			names := form{}
			if gateway {
				names.set("names", c.names).set("subjects", c.subjects)
			}
			alternative["clientCertificate"] = names
		}
		alternatives = append(alternatives, alternative)
	}
	switch {
	case len(alternatives) == 1:
		maps.Copy(f, alternatives[0])
	case alternatives != nil:
		f["anyOf"] = alternatives
	}
	if a.introspect != nil {
		f["introspect"] = *a.introspect
	}
	if a.registered != nil {
		f["clients"] = map[bool]string{true: "registered", false: "any"}[*a.registered]
	}
	if a.notNeeded != nil {
		f["tenant"] = map[bool]string{true: "optional", false: "required"}[*a.notNeeded]
	}
	return f
}

func (g gateway) form() form {
	f := form{
		"kind": "Gateway", "name": g.name, "profile": "private", "listen": "127.0.0.1:8443",
		"tls": form{"certificates": []string{"shop"}, "clientCertificates": form{"trust": "partners", "required": false}},
	}.set("tenants", g.tenants).set("denyStatus", g.denyStatus).set("maxStaleness", g.maxStaleness).set("authenticate", g.authenticate.form(true))
	if g.data {
		f["data"] = []string{"limits"}
	}
	var routes []form
	for _, r := range g.routes {
		route := form{"match": form{"path": r.path}.set("method", r.method), "to": r.to}.
			set("name", r.name).set("authenticate", r.authenticate.form(true))
		if r.allow != nil {
			route["allow"] = r.allow.source
		}
		if r.bind != nil {
			bound := form{}
			for name, b := range r.bind {
				bound[name] = b.source
			}
			route["bind"] = bound
		}
		if r.body {
			route["body"] = "64KiB"
		}
		routes = append(routes, route)
	}
	f["routes"] = routes
	return f
}

// otherGateway is one that the service may take Passports of as well.
func (d *documents) otherGateway() form {
	return form{"kind": "Gateway", "name": "partner", "profile": "private", "listen": "127.0.0.1:8444", "tls": form{"mode": "off"}}
}

func (s service) form() form {
	mtls := "strict"
	if s.permissive {
		mtls = "permissive"
	}
	f := form{"kind": "Service", "name": s.name, "mtls": mtls}.
		set("gateways", s.gateways).set("denyStatus", s.denyStatus).set("maxStaleness", s.maxStaleness).set("authenticate", s.authenticate.form(false))
	if s.permissive {
		f["plaintext"] = form{"from": []string{"10.0.0.0/8"}, "passport": s.clear}
	}
	if s.data {
		f["data"] = []string{"limits"}
	}
	var routes []form
	for _, r := range s.routes {
		callers := slices.Clone(r.callers)
		if r.plaintext {
			callers = append(callers, "plaintext")
		}
		route := form{"match": form{"path": r.path}.set("method", r.method), "allow": r.allow.source}.
			set("name", r.name).set("callers", callers).set("authenticate", r.authenticate.form(false))
		if r.body {
			route["body"] = "64KiB"
		}
		routes = append(routes, route)
	}
	f["routes"] = routes
	return f
}

// callerForm is a service that may call another.
func callerForm(of, name string) form {
	return form{"kind": "Service", "name": name, "uses": []string{of}}
}

// describe shows documents in a failure.
func (d *documents) describe() string { return fmt.Sprintf("documents:\n%s", d.text()) }
