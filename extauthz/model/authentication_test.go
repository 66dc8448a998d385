package model_test

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// authenticate finds out who makes a call; nil is nobody.
func (m *model) authenticate(c *call, d demand) (who *identity, source string, v refusal) {
	switch {
	case d.anonymous && len(d.anyOf) == 0:
		return nil, "", none
	case len(d.anyOf) == 0:
		return nil, "", forbidden("route_closed")
	}
	shown, v := c.find()
	if v != none {
		return nil, "", v
	}
	a, v := m.choose(d, shown, c.certificate != nil)
	if v != none || a == nil {
		return nil, "", v
	}
	if a.certificate && c.certificate.garbage {
		return nil, "", refused("certificate_invalid")
	}
	for _, kind := range a.kinds() {
		id, v := m.verify(kind, c, a, d, shown[kind])
		if v != none {
			return nil, "", v
		}
		if v := m.revocation(id, c.now); v != none {
			return nil, "", v
		}
		if who, v = together(who, id, shown); v != none {
			return nil, "", v
		}
	}
	return who, a.source(), none
}

func (m *model) verify(kind string, c *call, a *credentials, d demand, h *header) (*identity, refusal) {
	switch kind {
	case "access_token":
		return m.verifyToken(kind, c, m.provider(a.accessToken), d.introspect, h.token)
	case "id_token":
		return m.verifyToken(kind, c, m.provider(a.idToken), false, h.token)
	case "basic":
		return m.verifyPassword(a.basic, h)
	case "api_key":
		return m.verifyKey(c, h)
	}
	return verifyCertificate(c, a)
}

func (m *model) provider(name string) provider {
	return m.providers[slices.IndexFunc(m.providers, func(p provider) bool { return p.name == name })]
}

func (m *model) verifyToken(kind string, c *call, p provider, introspect bool, t *token) (*identity, refusal) {
	keys := m.keys[p.name]
	opaque := p.opaque && kind == "access_token"
	switch {
	case len(keys) == 0 && !opaque:
		return nil, down("no_keys")
	case !opaque && !c.now.Before(m.usable[p.name]):
		return nil, down("keys_stale")
	}
	var id *identity
	var reason string
	if !opaque {
		if t == nil {
			return nil, refused("token_malformed")
		}
		if id, reason = judgeToken(kind, p, keys, t, c); reason != "" {
			return nil, refused(reason)
		}
	}
	if !opaque && !introspect {
		return id, none
	}
	switch {
	case t == nil:
		return nil, refused("token_inactive")
	case t.unanswered:
		return nil, down("introspection_unavailable")
	}
	told, reason := judgeAnswer(p, t, c)
	switch {
	case reason != "":
		return nil, refused(reason)
	case opaque:
		return told, none
	case told.user != id.user || told.client != "" && told.client != id.client:
		return nil, refused("credentials_mismatch")
	}
	return id, none
}

// judgeToken verifies a JWT: what it is, from whom, for whom, when, by which
// key, about whom.
func judgeToken(kind string, p provider, keys []*key, t *token, c *call) (*identity, string) {
	if t.damage == notAToken {
		return nil, "token_malformed"
	}
	if !t.isOfKind(kind) {
		return nil, "token_type_mismatch"
	}
	if t.claims["iss"] != p.issuer {
		return nil, "issuer_mismatch"
	}
	if kind == "id_token" && !t.claims.areForClient(p.clients) || kind == "access_token" && !t.claims.areFor(p.audiences) {
		return nil, "audience_mismatch"
	}
	if reason := t.claims.times(kind, p, c.now); reason != "" {
		return nil, reason
	}
	candidates := slices.DeleteFunc(slices.Clone(keys), func(k *key) bool {
		return t.kid != "" && k.id != t.kid || t.kid == "" && k.algorithm != t.signer.algorithm
	})
	switch {
	case len(candidates) != 1:
		return nil, "unknown_key"
	case candidates[0].algorithm != t.signer.algorithm:
		return nil, "algorithm_mismatch"
	case candidates[0] != t.signer || t.damage == badSignature:
		return nil, "signature_invalid"
	}
	id, ok := t.claims.identity(p)
	if !ok {
		return nil, "claim_invalid"
	}
	id.kinds, id.isAccessToken = []string{kind}, kind == "access_token"
	if kind == "id_token" {
		id.issuedTo = t.claims.authorizedParty()
		if p.client == "" {
			id.client = id.issuedTo
		}
		id.accessHash, _ = t.claims["at_hash"].(string)
	}
	return id, id.shownBy(c)
}

// judgeAnswer reads what the provider says about a token.
func judgeAnswer(p provider, t *token, c *call) (*identity, string) {
	if t.inactive {
		return nil, "token_inactive"
	}
	if typ := t.claims["typ"]; typ != nil && typ != "Bearer" || typ == nil && (t.claims["nonce"] != nil || t.claims["at_hash"] != nil) {
		return nil, "token_type_mismatch"
	}
	if iss, present := t.claims["iss"]; present && iss != p.issuer {
		return nil, "issuer_mismatch"
	}
	if !t.claims.areFor(p.audiences) {
		return nil, "audience_mismatch"
	}
	if _, ends := t.claims["exp"]; ends {
		if reason := t.claims.times("access_token", p, c.now); reason != "" {
			return nil, reason
		}
	} else if reason := t.claims.begins("access_token", p, c.now); reason != "" {
		return nil, reason
	}
	id, ok := t.claims.identity(p)
	if !ok {
		return nil, "claim_invalid"
	}
	id.kinds, id.isAccessToken, id.issuer = []string{"access_token"}, true, p.issuer
	return id, id.shownBy(c)
}

// isOfKind tells access tokens and ID tokens apart: by the header if it says so,
// else by a claim that is there for it, else by claims that only one kind has.
func (t *token) isOfKind(kind string) bool {
	typ := strings.TrimPrefix(strings.ToLower(t.typ), "application/")
	_, event := t.claims["events"]
	switch {
	case event, typ != "at+jwt" && typ != "jwt" && typ != "":
		return false
	case typ == "at+jwt":
		return kind == "access_token"
	}
	if typ, typed := t.claims["typ"]; typed {
		return typ == map[string]string{"access_token": "Bearer", "id_token": "ID"}[kind]
	}
	foreign := map[string][]string{"access_token": {"nonce", "at_hash"}, "id_token": {"scope", "scp"}}[kind]
	return !slices.ContainsFunc(foreign, func(name string) bool { return t.claims[name] != nil })
}

// audiences of claims, one or several.
func (c claims) audiences() []string {
	switch aud := c["aud"].(type) {
	case string:
		return []string{aud}
	case []string:
		return aud
	}
	return nil
}

func (c claims) areFor(audiences []string) bool {
	return slices.ContainsFunc(c.audiences(), func(a string) bool { return slices.Contains(audiences, a) })
}

// areForClient wants an ID token to be for clients of ours alone, and to be
// issued to one of them.
func (c claims) areForClient(clients []string) bool {
	audiences := c.audiences()
	for _, a := range audiences {
		if !slices.Contains(clients, a) {
			return false
		}
	}
	party, present := c["azp"]
	if !present {
		return len(audiences) == 1
	}
	name, ok := party.(string)
	return ok && len(audiences) > 0 && slices.Contains(clients, name)
}

func (c claims) authorizedParty() string {
	if party, present := c["azp"].(string); present {
		return party
	}
	return c.audiences()[0]
}

func (c claims) time(name string) (time.Time, bool) {
	seconds, ok := c[name].(int64)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(seconds, 0), true
}

func (c claims) times(kind string, p provider, now time.Time) string {
	expires, ok := c.time("exp")
	if !ok {
		return "token_malformed"
	}
	if now.After(expires.Add(p.skew)) {
		return "token_expired"
	}
	if reason := c.begins(kind, p, now); reason != "" {
		return reason
	}
	issued, ok := c.time("iat")
	if !ok {
		issued = now.Add(p.skew)
	}
	if expires.Sub(issued) > cmp.Or(p.longestLife, 24*time.Hour) {
		return "token_lifetime"
	}
	return ""
}

func (c claims) begins(kind string, p provider, now time.Time) string {
	if begins, ok := c.time("nbf"); ok && begins.After(now.Add(p.skew)) {
		return "token_not_yet_valid"
	}
	issued, ok := c.time("iat")
	switch {
	case !ok && kind == "id_token":
		return "token_malformed"
	case ok && issued.After(now.Add(p.skew)):
		return "token_not_yet_valid"
	}
	return ""
}

// at finds a claim by its name, or by the path of names that begins with a slash.
func (c claims) at(path string) any {
	names, nested := strings.CutPrefix(path, "/")
	if !nested {
		return c[path]
	}
	var here any = c
	for name := range strings.SplitSeq(names, "/") {
		object, ok := here.(claims)
		if !ok {
			return nil
		}
		here = object[name]
	}
	return here
}

// name is a claim that names somebody; ok is false for what names nobody.
func (c claims) name(path string) (s string, ok bool) {
	switch value := c.at(path).(type) {
	case nil:
		return "", true
	case string:
		return value, value != "" && !strings.ContainsAny(value, "\n\x00") && strings.TrimSpace(value) == value
	}
	return "", false
}

// names is a claim that lists names, in an array or between spaces.
func (c claims) names(path string) (list []string, ok bool) {
	switch value := c.at(path).(type) {
	case nil:
		return nil, true
	case string:
		if value == "" {
			return []string{}, true
		}
		list = strings.Split(value, " ")
	case []string:
		list = value
	default:
		return nil, false
	}
	return list, !slices.Contains(list, "")
}

// identity reads whom claims are about.
func (c claims) identity(p provider) (*identity, bool) {
	var ok [8]bool
	id := &identity{issuer: p.issuer, provider: p.name, knowsUser: true}
	id.user, ok[0] = c.name(cmp.Or(p.user, "sub"))
	if p.user == "email" && (c["email_verified"] != true || strings.Count(id.user, "@") != 1) {
		return nil, false
	}
	ok[1] = true
	if p.tenant != "" {
		id.tenant, ok[1] = c.name(p.tenant)
	}
	id.groups, ok[2] = c.names(cmp.Or(p.groups, "groups"))
	ok[3] = true
	for _, name := range []string{"client_id", "azp"} {
		if id.issuedTo == "" && ok[3] {
			id.issuedTo, ok[3] = c.name(name)
		}
	}
	id.client, ok[4] = id.issuedTo, true
	if p.client != "" {
		id.client, ok[4] = c.name(p.client)
	}
	if id.scopes, ok[5] = c.names("scope"); id.scopes == nil && ok[5] {
		id.scopes, ok[5] = c.names("scp")
	}
	id.subject, ok[6] = c.name("sub")
	id.id, ok[7] = c.name("jti")
	id.issuedAt, _ = c.time("iat")
	id.acr, _ = c["acr"].(string)
	id.amr, _ = c["amr"].([]string)
	id.authTime, _ = c.time("auth_time")
	if bound, isBound := c["cnf"].(claims); isBound {
		id.boundTo = "something else"
		if thumbprint, ok := bound["x5t#S256"].(string); ok && len(bound) == 1 {
			id.boundTo = thumbprint
		}
	}
	return id, id.user != "" && !slices.Contains(ok[:], false)
}

// shownBy refuses a token that is bound to another certificate than the
// connection's.
func (id *identity) shownBy(c *call) string {
	if id.boundTo != "" && (c.certificate == nil || c.certificate.garbage || c.certificate.thumbprint() != id.boundTo) {
		return "token_bound"
	}
	return ""
}

func (m *model) verifyPassword(document string, h *header) (*identity, refusal) {
	i := slices.IndexFunc(m.users, func(u users) bool { return u.name == document })
	if m.unknown["users"] || i < 0 {
		return nil, down("no_accounts")
	}
	for _, u := range m.users[i].list {
		switch {
		case u.name != h.user:
		case h.password != passwordOf(u.name):
			return nil, refused("password_invalid")
		case u.disabled:
			return nil, refused("user_disabled")
		default:
			return &identity{kinds: []string{"basic"}, user: u.name, tenant: u.tenant, groups: u.groups, knowsUser: true}, none
		}
	}
	return nil, refused("password_invalid")
}

func (m *model) verifyKey(c *call, h *header) (*identity, refusal) {
	if m.unknown["keys"] {
		return nil, down("no_accounts")
	}
	for _, k := range m.apiKeys {
		if h.key != k.id || h.keyDamaged {
			continue
		}
		switch {
		case k.revoked:
			return nil, refused("api_key_disabled")
		case !k.expires.IsZero() && !c.now.Before(k.expires):
			return nil, refused("api_key_expired")
		}
		of := m.clients[slices.IndexFunc(m.clients, func(c client) bool { return c.id == k.client })]
		return &identity{
			kinds: []string{"api_key"}, user: k.owner, tenant: cmp.Or(k.tenant, of.tenant), client: k.client, scopes: k.scopes, id: k.id,
		}, none
	}
	return nil, refused("api_key_invalid")
}

// certificateSkew is tolerated on certificates.
const certificateSkew = 5 * time.Second

// verifyCertificate takes the first name that is asked for: a URI before a DNS
// name, before an address, before the subject.
func verifyCertificate(c *call, a *credentials) (*identity, refusal) {
	cert := c.certificate
	if c.now.After(cert.ends.Add(certificateSkew)) || c.now.Before(cert.begins.Add(-certificateSkew)) {
		return nil, refused("certificate_expired")
	}
	wanted := slices.Concat(a.names, a.subjects)
	for _, name := range slices.Concat(cert.uris, cert.dns, cert.emails, []string{cert.subject()}) {
		if slices.Contains(wanted, name) {
			return &identity{kinds: []string{"client_certificate"}, user: name}, none
		}
	}
	return nil, refused("certificate_name_mismatch")
}

// together joins what two credentials say. What both say must be the same.
func together(who, id *identity, shown map[string]*header) (*identity, refusal) {
	if who == nil {
		return id, none
	}
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	isID := id.kinds[0] == "id_token"
	if isID && who.isAccessToken {
		access := shown["access_token"].text
		switch {
		case who.issuer != id.issuer, id.subject == "", who.subject != id.subject, who.user != id.user, differ(who.tenant, id.tenant),
			id.issuedTo == "", who.issuedTo != id.issuedTo, id.accessHash != "" && id.accessHash != atHash(shown["id_token"].token.signer.algorithm, access[len("Bearer "):]):
			return nil, refused("credentials_mismatch")
		}
	}
	if differ(who.client, id.client) || differ(who.tenant, id.tenant) || who.knowsUser && id.knowsUser && who.user != id.user {
		return nil, refused("credentials_mismatch")
	}
	joined := *who
	if isID && id.issuedAt.Before(who.issuedAt) {
		joined.issuedAt = id.issuedAt // what revokes the older one revokes both
	}
	if id.id != "" {
		joined.others = append(slices.Clone(who.others), id.id)
	}
	joined.kinds = append(slices.Clone(who.kinds), id.kinds...)
	joined.client = cmp.Or(who.client, id.client)
	if who.knowsUser && !id.knowsUser {
		return &joined, none // the user is no other for a key
	}
	joined.tenant = cmp.Or(who.tenant, id.tenant)
	if joined.groups == nil {
		joined.groups = id.groups
	}
	if joined.scopes == nil {
		joined.scopes = id.scopes
	}
	if isID && (id.acr != "" || id.amr != nil || !id.authTime.IsZero()) {
		joined.acr, joined.amr, joined.authTime = id.acr, id.amr, id.authTime
	}
	return &joined, none
}
