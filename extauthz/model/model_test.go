package model_test

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// knowledge is what a policy decision point was given, beside documents.
type knowledge struct {
	// keys of identity providers, by name; a provider that is not here is not
	// known. usable is until when they are.
	keys   map[string][]*key
	usable map[string]time.Time
	// unknown are kinds of accounts that have not come yet: "clients", "keys",
	// "users".
	unknown map[string]bool
	// noSigner says that the gateway has nothing to sign with.
	noSigner bool
	// passportKeys of gateways, by gateway; nil is none that has come.
	passportKeys map[string][]passportKey
	// noTrust says that nothing is known of callers' certificates, revoked are
	// those that are not good any more.
	noTrust bool
	revoked []certificate
	// revocations of credentials; noRevocations says that they have not come.
	revocations   []revocation
	noRevocations bool
	// heard is when there was last word of whoever gave all this.
	heard time.Time
}

// revocation refuses credentials by what they say: those that were issued until
// before, for as long as it lasts. No providers is all.
type revocation struct {
	kind, value     string
	providers       []string
	before, expires time.Time
}

// revokes compares what a credential says: of whom, with which id, for whom.
func (r revocation) revokes(id *identity, now time.Time) bool {
	about := map[string][]string{
		"subject": {id.user, id.subject}, "token": append([]string{id.id}, id.others...), "client": {id.client}, "tenant": {id.tenant},
	}[r.kind]
	return slices.Contains(about, r.value) && (r.providers == nil || slices.Contains(r.providers, id.provider)) &&
		!id.issuedAt.After(r.before) && !now.After(r.expires)
}

func (m *model) revocation(id *identity, now time.Time) refusal {
	if m.noRevocations {
		return down("no_revocations")
	}
	if slices.ContainsFunc(m.revocations, func(r revocation) bool { return r.revokes(id, now) }) {
		return refused("token_revoked")
	}
	return none
}

// passportKey is a key, and what its Passports may say.
type passportKey struct {
	*key
	providers []string
	tenants   []string // nil is any
	until     time.Time
}

// call is a request as a policy decision point sees it.
type call struct {
	policy, route string
	method        string
	path          []string // segments, as they are sent
	spoilt        bool     // the path has two readings
	query         string
	host, address string
	certificate   *certificate
	principal     string
	now           time.Time

	authorization []header
	idTokens      []header
	apiKeys       []header
	passports     []header
	roles         []string // x-role

	contentTypes []string
	body         body
	// merged says that Envoy joined the lines of each header by commas.
	merged bool
}

// header is the value of one line of a header that carries a credential.
type header struct {
	text string
	// scheme of Authorization, "bearer" or "basic", or else something else.
	scheme string
	// bad says that nobody can read it, comma that it has one.
	bad, comma bool

	token          *token
	key            string // id of an API key; empty is a key that is none
	keyDamaged     bool
	user, password string
	statement      *statement
}

type body struct {
	text string
	// amount in it, nil if there is none or it cannot be read.
	amount *int
	// more says that Envoy did not see all of it.
	more bool
}

// outcome is everything that an answer tells.
type outcome struct {
	Status               int
	Reason, Code         string
	Challenge            bool
	User, Tenant, Client string
	Plan, IP, Caller     string
	Strips               bool
	Passport             *minted
}

// minted are the claims of a Passport.
type minted struct {
	Subject, Audience, Gateway string
	Scope                      string
	IssuedAt, ExpiresAt        int64
	Provider, Tenant, Client   string
	Groups                     []string
	Bound                      map[string]string
	IP, Authn, ACR             string
	AMR                        []string
	AuthTime                   int64
	TokenIDs                   []string
	TokenSubject               string
	TokenIssuedAt              int64
}

// identity is who a credential speaks for.
type identity struct {
	kinds                    []string
	user, tenant, client     string
	groups, scopes, amr      []string
	issuer, subject, id      string
	others                   []string // IDs of what was shown beside it
	provider                 string   // of tokens
	acr                      string
	authTime, issuedAt       time.Time
	issuedTo, accessHash     string // of tokens that belong together
	boundTo                  string
	knowsUser, isAccessToken bool
}

// model decides calls.
type model struct {
	*documents
	knowledge
	// routesByOrder says that calls do not name their route.
	routesByOrder bool
	// ids of routes, in the order of the documents.
	gatewayIDs, serviceIDs []string
}

// refusal is a reason with its status; empty is none.
type refusal struct {
	reason string
	status int
}

var (
	none       = refusal{}
	badRequest = func(reason string) refusal { return refusal{reason, 400} }
	forbidden  = func(reason string) refusal { return refusal{reason, 403} }
	refused    = func(reason string) refusal { return refusal{reason, 401} }
	down       = func(reason string) refusal { return refusal{reason, 503} }
)

// demand is what an authenticate comes to.
type demand struct {
	anyOf                                     []credentials
	anonymous, introspect, registered, tenant bool
	acr, amr                                  []string
	maxAge                                    time.Duration
}

// with is d but for what a says: credentials as a whole, the rest one by one.
func (d demand) with(a *authenticate) demand {
	if a == nil {
		return d
	}
	if a.anyOf != nil || a.anonymous {
		d.anyOf, d.anonymous = a.anyOf, a.anonymous
	}
	if a.introspect != nil {
		d.introspect = *a.introspect
	}
	if a.registered != nil {
		d.registered = *a.registered
	}
	if a.notNeeded != nil {
		d.tenant = !*a.notNeeded
	}
	if a.acr != nil {
		d.acr = a.acr
	}
	if a.amr != nil {
		d.amr = a.amr
	}
	if a.maxAge != 0 {
		d.maxAge = a.maxAge
	}
	return d
}

// admitsNobody reports whether d is met without a Passport, or demands nothing
// of one but its tenant.
func (d demand) admitsNobody() bool {
	return d.anonymous || d.anyOf == nil && d.acr == nil && d.amr == nil && d.maxAge == 0
}

// speakOfTenants reports whether any document does: else none is demanded.
func (d *documents) speakOfTenants() bool {
	return slices.ContainsFunc(d.providers, func(p provider) bool { return p.tenant != "" }) ||
		slices.ContainsFunc(d.clients, func(c client) bool { return c.tenant != "" }) ||
		slices.ContainsFunc(d.apiKeys, func(k apiKey) bool { return k.tenant != "" }) ||
		slices.ContainsFunc(d.users, func(u users) bool {
			return slices.ContainsFunc(u.list, func(u user) bool { return u.tenant != "" })
		})
}

// matches compares segment by segment; {x} is any one that is not empty, ** at
// the end whatever is left.
func matches(pattern string, path []string) (map[string]string, bool) {
	params := map[string]string{}
	want := strings.Split(pattern, "/")[1:]
	for i, segment := range want {
		switch {
		case segment == "**":
			return params, true
		case i >= len(path):
			return nil, false
		case strings.HasPrefix(segment, "{"):
			if path[i] == "" {
				return nil, false
			}
			params[strings.Trim(segment, "{}")] = decoded(path[i])
		case segment != decoded(path[i]):
			return nil, false
		}
	}
	return params, len(path) == len(want)
}

// decoded knows what the generator encodes.
var decoded = strings.NewReplacer("%40", "@", "%20", " ", "%C3%BC", "ü", "%2B", "+", "%3A", ":").Replace

// plain leaves encoded what must be.
var plain = strings.NewReplacer("%40", "@", "%2B", "+", "%3A", ":").Replace

// hosts are those that requests have, and what rules read of them.
var hosts = map[string]string{
	"api.test": "api.test", "API.test": "api.test", "api.test:8443": "api.test", "Api.Test.:443": "api.test", "other.test": "other.test",
	"[0:0::1]:443": "[::1]", "api.test:http": "", "api..test": "", "user@api.test": "",
}

// find finds the credentials of a call, each kind in its place.
func (c *call) find() (shown map[string]*header, bad refusal) {
	shown = map[string]*header{}
	for _, place := range []struct {
		lines []header
		kind  string
	}{{c.authorization, ""}, {c.idTokens, "id_token"}, {c.apiKeys, "api_key"}} {
		if len(place.lines) == 0 {
			continue
		}
		h := &place.lines[0]
		switch {
		case len(place.lines) > 1 || h.comma:
			return shown, refused("credential_ambiguous")
		case place.kind != "":
			if h.bad {
				return shown, refused("token_malformed")
			}
			shown[place.kind] = h
		case h.scheme != "bearer" && h.scheme != "basic":
			return shown, refused("credential_unsupported")
		case h.bad:
			return shown, refused("token_malformed")
		case h.scheme == "bearer":
			shown["access_token"] = h
		default:
			shown["basic"] = h
		}
	}
	if strings.Contains(c.query, "access_token") {
		if len(shown) == 0 {
			return shown, refused("credential_unsupported")
		}
		return shown, refused("credential_ambiguous")
	}
	return shown, none
}

// kinds of an alternative, in the order in which they are verified.
func (a credentials) kinds() []string {
	var kinds []string
	for kind, demanded := range map[string]bool{
		"access_token": a.accessToken != "", "id_token": a.idToken != "", "basic": a.basic != "", "api_key": a.apiKey,
		"client_certificate": a.certificate,
	} {
		if demanded {
			kinds = append(kinds, kind)
		}
	}
	slices.SortFunc(kinds, func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
	return kinds
}

var order = []string{"access_token", "id_token", "basic", "api_key", "client_certificate"}

// source vouches for the user of an alternative.
func (a credentials) source() string {
	switch {
	case a.accessToken != "":
		return a.accessToken
	case a.idToken != "":
		return a.idToken
	case a.basic != "":
		return "chancery:users/" + a.basic
	case a.apiKey:
		return "chancery:api-keys"
	}
	return "chancery:certificates"
}

// choose picks the alternative by what is shown, never by what is good: of
// several, that of the issuer which the token names. Nil without a refusal is
// nobody.
func (m *model) choose(d demand, shown map[string]*header, certificate bool) (*credentials, refusal) {
	headers := slices.Sorted(maps.Keys(shown))
	withoutCertificate := func(a credentials) []string {
		return slices.Sorted(slices.Values(slices.DeleteFunc(a.kinds(), func(k string) bool { return k == "client_certificate" })))
	}
	var first *credentials
	for i, a := range d.anyOf {
		switch {
		case !slices.Equal(withoutCertificate(a), headers) || a.certificate && !certificate:
		case m.isIssuer(cmp.Or(a.accessToken, a.idToken), shown):
			return &d.anyOf[i], none
		case first == nil:
			first = &d.anyOf[i]
		}
	}
	if first != nil {
		return first, none
	}
	if len(headers) == 0 {
		if d.anonymous {
			return nil, none
		}
		return nil, refused("credential_missing")
	}
	known := func(kind string) bool {
		return slices.ContainsFunc(d.anyOf, func(a credentials) bool { return slices.Contains(a.kinds(), kind) })
	}
	if slices.ContainsFunc(headers, func(kind string) bool { return !known(kind) }) {
		return nil, refused("credential_unsupported")
	}
	for _, a := range d.anyOf {
		if !slices.ContainsFunc(headers, func(kind string) bool { return !slices.Contains(a.kinds(), kind) }) {
			return nil, refused("credential_missing")
		}
	}
	return nil, refused("credential_ambiguous")
}

// isIssuer reports whether the token that is shown, access tokens before ID
// tokens, says that it is of a provider.
func (m *model) isIssuer(provider string, shown map[string]*header) bool {
	h := cmp.Or(shown["access_token"], shown["id_token"])
	return h != nil && h.token != nil && h.token.damage != notAToken && h.token.claims["iss"] == m.provider(provider).issuer
}

// gatewayDecides is what a gateway answers.
func (m *model) gatewayDecides(c *call) outcome {
	o := outcome{IP: network(address(c.address)), Caller: "-"}
	who, v := m.atGateway(c, &o)
	o.describe(who)
	return m.conclude(o, v, m.gateway.denyStatus)
}

func (o *outcome) describe(who *identity) {
	if who != nil {
		o.User, o.Tenant, o.Client = who.user, who.tenant, who.client
	}
}

// conclude fills in what follows from a refusal.
func (m *model) conclude(o outcome, v refusal, denyStatus int) outcome {
	for _, s := range []*string{&o.User, &o.Tenant, &o.Client, &o.Plan, &o.IP, &o.Caller} {
		if *s == "" {
			*s = "-"
		}
	}
	if v == none {
		o.Status, o.Reason = 200, "allowed"
		return o
	}
	o.Strips, o.Passport = false, nil
	o.Status, o.Reason = v.status, v.reason
	if v.status == 401 && denyStatus != 0 {
		o.Status = denyStatus
	}
	o.Challenge = o.Status == 401
	switch {
	case o.Status == 401 && strings.HasPrefix(v.reason, "login_too"):
		o.Code = "step_up_required"
	case o.Status == 401:
		o.Code = "unauthenticated"
	case o.Status == 403:
		o.Code = "forbidden"
	case o.Status == 503:
		o.Code = "unavailable"
	default:
		o.Code = "bad_request"
	}
	return o
}

// isDestination reports whether the gateway may call a service of that name.
func (m *model) isDestination(name string) bool {
	return name == "billing" || name == "orders" && slices.ContainsFunc(m.service.routes, func(r serviceRoute) bool {
		return slices.Contains(r.callers, m.gateway.name)
	})
}

func (m *model) atGateway(c *call, o *outcome) (*identity, refusal) {
	if m.isStale(m.gateway.maxStaleness, c.now) {
		return nil, down("pdp_stale")
	}
	var r *gatewayRoute
	match := func(candidate *gatewayRoute) (map[string]string, bool) {
		params, ok := matches(candidate.path, c.path)
		return params, ok && takes(candidate.method, c.method) && (candidate.to != "{service}" || m.isDestination(params["service"]))
	}
	if m.routesByOrder {
		if c.spoilt {
			return nil, badRequest("path_ambiguous")
		}
		for i := range m.gateway.routes {
			if _, ok := match(&m.gateway.routes[i]); ok && r == nil {
				r = &m.gateway.routes[i]
			}
		}
	} else {
		if c.policy != "gateway/"+m.gateway.name {
			return nil, down("unknown_policy")
		}
		i := slices.Index(m.gatewayIDs, c.route)
		if i < 0 {
			return nil, down("unknown_route")
		}
		if c.spoilt {
			return nil, badRequest("path_ambiguous")
		}
		r = &m.gateway.routes[i]
	}
	if r == nil {
		return nil, forbidden("route_mismatch")
	}
	params, ok := match(r)
	if !ok {
		return nil, forbidden("route_mismatch")
	}
	d := demand{tenant: m.speakOfTenants()}.with(m.gateway.authenticate).with(r.authenticate)
	who, source, v := m.authenticate(c, d)
	if v != none {
		return nil, v
	}
	f := m.factsOf(c, params, r.body, m.gateway.data)
	if who != nil {
		if v := m.accept(c, d, r, params, who, source, o); v != none {
			return who, v
		}
		f.who(who)
		f.provider = source
		for _, registered := range m.clients {
			if registered.id == who.client {
				f.clientOwner, f.plan = registered.owner, registered.plan
			}
		}
	}
	if v := evaluate(r.allow, f, c, r.body); v != none {
		return who, v
	}
	o.Strips = true
	if who == nil {
		return nil, none
	}
	return who, m.mint(c, r, who, source, f, o)
}

// takes says which methods are those of a route.
func takes(routes, method string) bool {
	if routes == "GET" {
		return method == "GET" || method == "HEAD"
	}
	return routes == "" || routes == method
}

func (m *model) isStale(bound time.Duration, now time.Time) bool {
	return bound != 0 && now.Sub(m.heard) > bound
}

// accept judges the login, the tenant and the client.
func (m *model) accept(c *call, d demand, r *gatewayRoute, params map[string]string, who *identity, source string, o *outcome) refusal {
	if v := d.login(who.acr, who.amr, who.authTime, c.now); v != none {
		return v
	}
	if v := m.tenant(d, who.tenant, m.gateway.tenants); v != none {
		return v
	}
	for _, p := range m.providers {
		if p.name == source && p.tenants != nil && !slices.Contains(p.tenants, who.tenant) {
			return forbidden("tenant_not_accepted")
		}
	}
	if m.unknown["clients"] {
		return down("no_accounts")
	}
	i := slices.IndexFunc(m.clients, func(c client) bool { return c.id == who.client })
	if i < 0 {
		if d.registered {
			return forbidden("client_not_registered")
		}
		return none
	}
	registered := m.clients[i]
	o.Plan = registered.plan
	to := r.to
	if strings.HasPrefix(to, "{") {
		to = params[strings.Trim(to, "{}")]
	}
	switch {
	case !registered.active:
		return forbidden("client_inactive")
	case registered.tenant != "" && registered.tenant != who.tenant:
		return forbidden("client_tenant_mismatch")
	case d.registered && !slices.Contains(registered.apis, to):
		return forbidden("client_api_not_allowed")
	}
	return none
}

// loginSkew is tolerated on the age of logins.
const loginSkew = 30 * time.Second

func (d demand) login(acr string, amr []string, at, now time.Time) refusal {
	if d.acr != nil && !slices.Contains(d.acr, acr) {
		return refused("login_too_weak")
	}
	for _, method := range d.amr {
		if !slices.Contains(amr, method) {
			return refused("login_too_weak")
		}
	}
	if d.maxAge != 0 && (at.IsZero() || now.Sub(at) > d.maxAge+loginSkew) {
		return refused("login_too_old")
	}
	return none
}

func (m *model) tenant(d demand, tenant string, let []string) refusal {
	switch {
	case tenant == "" && d.tenant:
		return forbidden("tenant_missing")
	case let != nil && !slices.Contains(let, tenant):
		return forbidden("tenant_not_accepted")
	}
	return none
}

func (m *model) factsOf(c *call, params map[string]string, reads, data bool) *facts {
	f := &facts{
		method: c.method, rawPath: "/" + strings.Join(c.path, "/"), host: hosts[c.host], ip: address(c.address), query: c.query, now: c.now,
		params: params, roles: c.roles, tables: m.documents, data: data,
	}
	f.path, f.target = plain(f.rawPath), f.rawPath
	if c.query != "" {
		f.target += "?" + c.query
	}
	json := len(c.contentTypes) == 1 && jsonTypes[c.contentTypes[0]]
	if reads && json {
		f.amount = c.body.amount
	}
	return f
}

func (f *facts) who(id *identity) {
	f.user, f.tenant, f.client = id.user, id.tenant, id.client
	f.groups, f.scopes, f.acr, f.amr, f.authTime = id.groups, id.scopes, id.acr, id.amr, id.authTime
}

func evaluate(r *rule, f *facts, c *call, reads bool) refusal {
	if reads && c.body.more {
		return refusal{"body_truncated", 413}
	}
	if r == nil {
		return none
	}
	switch r.means(f) {
	case yes:
		return none
	case no:
		return forbidden("policy_denied")
	}
	return forbidden("policy_error")
}

func (m *model) mint(c *call, r *gatewayRoute, who *identity, source string, f *facts, o *outcome) refusal {
	var bound map[string]string
	for name, b := range r.bind {
		fact := b.means(f)
		if fact == "" || strings.TrimSpace(fact) != fact {
			return forbidden("binding_error")
		}
		if bound == nil {
			bound = map[string]string{}
		}
		bound[name] = fact
	}
	if m.noSigner {
		return down("no_signing_key")
	}
	p := &minted{
		Subject: who.user, Audience: trustDomain, Gateway: "spiffe://" + trustDomain + "/gateway/" + m.gateway.name,
		Scope: strings.Join(who.scopes, " "), IssuedAt: c.now.Unix(), ExpiresAt: c.now.Add(passportLifetime).Unix(),
		Provider: source, Tenant: who.tenant, Client: who.client, Groups: who.groups, Bound: bound,
		IP: address(c.address), Authn: strings.Join(inPassportOrder(who.kinds), "+"), ACR: who.acr, AMR: who.amr,
	}
	for _, id := range append([]string{who.id}, who.others...) {
		if id != "" {
			p.TokenIDs = append(p.TokenIDs, id)
		}
	}
	if who.subject != who.user {
		p.TokenSubject = who.subject
	}
	if !who.authTime.IsZero() {
		p.AuthTime = who.authTime.Unix()
	}
	if !who.issuedAt.IsZero() {
		p.TokenIssuedAt = who.issuedAt.Unix()
	}
	o.Passport = p
	return none
}

// inPassportOrder is how Passports name kinds.
func inPassportOrder(kinds []string) []string {
	names := []string{"access_token", "id_token", "api_key", "basic", "client_certificate"}
	return slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(kinds, name) })
}

// address is how an address is written, whatever Envoy writes.
func address(s string) string {
	s = strings.TrimPrefix(s, "::ffff:")
	if s == "no address" {
		return ""
	}
	return s
}

// network is what limits are kept for: all that one host may have.
func network(s string) string {
	if s == "2001:db8::1" {
		return "2001:db8::/64"
	}
	return s
}
