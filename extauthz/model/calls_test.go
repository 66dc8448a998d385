package model_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// caller makes up calls for documents: such that are right, and then some fault.
type caller struct {
	generator
	m   *model
	now time.Time
	// guesses is how many more wrong passwords there may be: they are throttled,
	// and the model is not.
	guesses *int
}

// ownThumbprint is of the certificate that clients mostly have.
var ownThumbprint = func() string {
	c := newCertificate(certificateNames[0])
	return c.thumbprint()
}()

var jsonTypes = map[string]bool{
	"application/json": true, "application/json; charset=utf-8": true, "application/vnd.order+json": true,
	"text/plain": false, "application/json; charset=utf-7": false, "multipart/form-data": false,
}

// common is what calls of both kinds have.
func (g caller) common(pattern, method string) *call {
	c := &call{
		method: method, host: pick(g.generator, append(slices.Sorted(maps.Keys(hosts)), "api.test", "api.test", "api.test")...), now: g.now,
		address: pick(g.generator, "192.0.2.1", "192.0.2.1", "10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "no address"),
		query:   pick(g.generator, "", "", "", "debug=1", "a=1&debug", "a;debug=1", "debug=%zz", "debug=1#x"),
		roles:   pick(g.generator, nil, nil, []string{"clerk"}, []string{"clerk", "admin"}, []string{"user"}), merged: g.chance(6),
	}
	if method == "" {
		c.method = pick(g.generator, "GET", "GET", "POST", "DELETE", "HEAD")
	}
	for segment := range strings.SplitSeq(pattern[1:], "/") {
		switch segment {
		case "{id}":
			c.path = append(c.path, pick(g.generator, "alice", "bob", "7", "a%20b", "%C3%BC", "x%40y", "a+b", "a%2Bb", "1:2", "1%3A2"))
		case "{service}":
			c.path = append(c.path, pick(g.generator, "orders", "billing", "nothing"))
		case "**":
			c.path = append(c.path, pick(g.generator, nil, []string{""}, []string{"a"}, []string{"a", "b"}, []string{"x@y"}, []string{"x%40y", "a%2Bb"})...)
		case "x@y":
			c.path = append(c.path, pick(g.generator, "x@y", "x%40y"))
		default:
			c.path = append(c.path, segment)
		}
	}
	if c.path == nil {
		c.path = []string{""}
	}
	if g.chance(2) {
		g.fillBody(c)
	}
	return c
}

func (g caller) fillBody(c *call) {
	c.contentTypes = []string{pick(g.generator, "application/json", "application/json", "application/json; charset=utf-8",
		"application/vnd.order+json", "text/plain", "application/json; charset=utf-7", "multipart/form-data")}
	if g.chance(20) {
		c.contentTypes = append(c.contentTypes, "application/json")
	}
	amount := pick(g.generator, 1, 5, 50, 99, 100, 1000)
	c.body = body{text: fmt.Sprintf(`{"amount":%d}`, amount), amount: &amount, more: g.chance(10)}
	switch g.IntN(14) {
	case 0:
		c.body.text, c.body.amount = fmt.Sprintf(`{"amount":1000,"amount":%d}`, amount), nil
	case 1:
		c.body.text, c.body.amount = `{"amount":`, nil
	case 2:
		c.body.text, c.body.amount = `{"other":1}`, nil
	case 3:
		c.body.text, c.body.amount = fmt.Sprintf(`{"amount":%d,"Amount":1000}`, amount), nil
	}
}

// spoil breaks what both kinds of calls have.
func (g caller) spoil(c *call, ids []string) {
	switch g.IntN(6) {
	case 0:
		c.policy = pick(g.generator, "gateway/other", "service/public", "")
	case 1:
		c.route = pick(g.generator, append(slices.Clone(ids), "no such route", "")...)
	case 2:
		c.method = pick(g.generator, "PUT", "get", "TRACE", "HEAD")
	case 3:
		c.path = append(c.path, pick(g.generator, "", "more", "lines"))
	case 4:
		c.spoilt = true
		at := g.IntN(len(c.path) + 1)
		c.path = slices.Insert(c.path, at, pick(g.generator, "..", ".", "%2E%2E", "a%2Fb", "a;b", "%61", "a%c3%bc", "a\\b", "%00", "a%", "a%25b", "a|b"))
	case 5:
		c.query = pick(g.generator, "access_token=a", "x=1&access_token=a", "x=1;access_token=a")
	}
	if slices.Contains(c.path[:len(c.path)-1], "") {
		c.spoilt = true // "//"
	}
}

// gatewayCall is a call that a route is for.
func (g caller) gatewayCall() *call {
	i := g.IntN(len(g.m.gateway.routes))
	r := g.m.gateway.routes[i]
	c := g.common(r.path, r.method)
	c.policy, c.route = "gateway/"+g.m.gateway.name, g.m.gatewayIDs[i]
	d := demand{}.with(g.m.gateway.authenticate).with(r.authenticate)
	if len(d.anyOf) > 0 && !g.chance(20) {
		g.show(c, pick(g.generator, d.anyOf...), d)
	}
	if g.chance(8) {
		c.certificate = g.clientCertificate()
	}
	if g.chance(8) {
		g.spoil(c, g.m.gatewayIDs)
	}
	if g.chance(8) {
		g.spoilCredentials(c)
	}
	return c
}

// show adds credentials that are good for an alternative, or nearly so.
func (g caller) show(c *call, a credentials, d demand) {
	if a.certificate {
		c.certificate = g.clientCertificate()
	}
	var bound string
	if g.chance(12) {
		cert := g.clientCertificate()
		bound = ownThumbprint
		if !g.chance(3) {
			c.certificate = cert
		}
	}
	subject := pick(g.generator, "alice", "alice", "alice", "bob")
	if a.accessToken != "" {
		t := g.token("access_token", g.m.provider(a.accessToken), subject, d)
		if bound != "" {
			t.claims["cnf"] = claims{"x5t#S256": bound}
			if g.chance(6) {
				t.claims["cnf"] = claims{"jkt": bound}
			}
		}
		c.authorization = []header{{text: "Bearer " + t.text(), scheme: "bearer", token: t}}
	}
	if a.idToken != "" {
		t := g.token("id_token", g.m.provider(a.idToken), subject, d)
		if len(c.authorization) > 0 {
			g.bindTogether(t, c.authorization[0].text[len("Bearer "):])
		}
		c.idTokens = []header{{text: t.text(), token: t}}
	}
	if a.basic != "" {
		c.authorization = []header{g.basic(a.basic)}
	}
	if a.apiKey {
		c.apiKeys = []header{g.apiKey()}
	}
}

func (g caller) bindTogether(t *token, access string) {
	switch g.IntN(4) {
	case 0:
		t.claims["at_hash"] = atHash(t.signer.algorithm, access)
	case 1:
		if g.chance(4) {
			t.claims["at_hash"] = atHash(t.signer.algorithm, "another")
		}
	}
}

// token makes a token of a provider, at most one or two things of which are wrong.
func (g caller) token(kind string, p provider, subject string, d demand) *token {
	now := g.now.Unix()
	t := &token{
		typ: pick(g.generator, "at+jwt", "", "JWT", "application/at+jwt"), kid: "k1", signer: k1,
		claims: claims{"iss": p.issuer, "sub": subject, "exp": now + pick(g.generator, int64(60), 5, 110, 111), "iat": now - 10},
	}
	if keys := g.m.keys[p.name]; len(keys) > 0 && !g.chance(30) {
		t.signer = pick(g.generator, keys...)
		t.kid = t.signer.id
	}
	for name, value := range map[string]any{
		"email": subject + "@corp.test", "email_verified": true, "who": claims{"id": subject}, "realm": claims{"roles": []string{"sales"}},
		"groups": pick[any](g.generator, []string{"sales"}, []string{"sales", "admins"}, []string{"support", "banned"}, "sales support", []string{}),
		"tenant": pick[any](g.generator, "acme", "acme", "acme", "acme", "globex", "evil"), "app": pick(g.generator, "web", "mobile"), "jti": "t-1",
		"acr": pick(g.generator, "high", "medium", "low"), "amr": pick(g.generator, []string{"pwd"}, []string{"pwd", "otp"}),
		"auth_time": now - pick(g.generator, int64(1), 9, 40, 41, 90, 91, 100),
	} {
		if !g.chance(15) {
			t.claims[name] = value
		}
	}
	if d.acr != nil && !g.chance(3) {
		t.claims["acr"], t.claims["amr"], t.claims["auth_time"] = "high", []string{"pwd", "otp"}, now-1
	}
	if kind == "access_token" {
		t.claims["aud"] = pick[any](g.generator, "shop-api", "shop-api", []string{"x", "shop-api"})
		t.claims["client_id"] = pick(g.generator, "web", "web", "mobile", "batch", "unregistered")
		t.claims["scope"] = pick(g.generator, "read", "read write", "write", "")
		if p.opaque {
			t.claims["typ"] = "Bearer"
		}
	} else {
		t.typ = pick(g.generator, "JWT", "", "jwt")
		t.claims["aud"] = pick[any](g.generator, "web", "web", []string{"web"}, "mobile")
		t.claims["nonce"] = "n"
	}
	if g.chance(5) {
		g.spoilToken(t, p)
	}
	return t
}

// spoilToken makes one thing of a token wrong, or unusual.
func (g caller) spoilToken(t *token, p provider) {
	now := g.now.Unix()
	set := func(name string, values ...any) {
		if value := pick(g.generator, values...); value == nil {
			delete(t.claims, name)
		} else {
			t.claims[name] = value
		}
	}
	skew := int64(p.skew / time.Second)
	switch g.IntN(20) {
	case 0:
		set("iss", nil, "https://evil.test", p.issuer+"/", strings.ToUpper(p.issuer), "https://staff.test", "https://partners.test")
	case 1:
		set("aud", nil, "other", "", []string{}, []string{"shop-api", "web"}, "SHOP-API", "legacy-api", []string{"web", "mobile"}, []string{"mobile", "web"}, []string{"web", "evil"})
	case 2:
		set("exp", nil, now-skew, now-skew-1, now-skew+1, now-skew-100, now, now-1)
	case 3:
		set("nbf", now+skew, now+skew+1, now+skew+100, now)
	case 4:
		set("iat", nil, now+skew, now+skew+1, now+skew+100, now-1000000)
	case 5:
		t.kid = pick(g.generator, "", "k1", "k2", "k3", "unknown")
	case 6:
		t.signer = pick(g.generator, k1, k2, k3, evil)
	case 7:
		t.damage = pick(g.generator, badSignature, notAToken)
	case 8:
		t.typ = pick(g.generator, "txntoken+jwt", "logout+jwt", "AT+JWT", "jwt", "at+jwt", "JOSE")
	case 9:
		set("sub", nil, "", "alice\n", " alice", "mallory", int64(7))
	case 10:
		set("groups", nil, int64(1), "", []string{""}, " sales", []string{"sales", "sales"})
	case 11:
		set("tenant", nil, "", int64(1), []string{"acme"}, "acme ")
	case 12:
		set("client_id", nil, "", int64(1), "web\x00")
	case 13:
		set("azp", nil, "web", "mobile", "evil", int64(3))
	case 14:
		set("scope", nil, "read  write", []string{"read"}, int64(1), " ")
	case 15:
		set("nonce", "n", nil)
	case 16:
		set("typ", "Bearer", "ID", "Refresh")
	case 17:
		set("email_verified", nil, false, "true")
	case 18:
		set("email", "a@b@corp.test", nil, "alice")
	case 19:
		if t.inactive = g.chance(2); !t.inactive {
			t.unanswered = g.chance(2)
		}
	}
}

func (g caller) basic(document string) header {
	h := header{scheme: "basic", user: pick(g.generator, "alice", "alice", "alice", "bob")}
	h.password = passwordOf(h.user)
	u := g.m.users[slices.IndexFunc(g.m.users, func(u users) bool { return u.name == document })]
	known := slices.ContainsFunc(u.list, func(u user) bool { return u.name == h.user })
	wrong := !known || g.chance(10)
	if wrong && *g.guesses <= 0 {
		h.user = "alice" // who is always there
		h.password, wrong = passwordOf(h.user), false
	}
	if wrong {
		*g.guesses--
		h.password = pick(g.generator, "wrong", passwordOf(h.user))
	}
	h.text = "Basic " + standard(h.user+":"+h.password)
	return h
}

func (g caller) apiKey() header {
	h := header{key: pick(g.generator, keyIDs...)}
	if len(g.m.apiKeys) > 0 && !g.chance(8) {
		h.key = pick(g.generator, g.m.apiKeys...).id
	}
	h.text = keyText(h.key)
	if g.chance(12) {
		h.keyDamaged = true
		h.text = pick(g.generator, h.text[:len(h.text)-1]+"1", strings.ToUpper(h.text), h.text[:20], h.text+"a", h.key, strings.Replace(h.text, "s", "S", 1))
	}
	return h
}

func (g caller) clientCertificate() *certificate {
	c := newCertificate(certificateNames[0])
	switch g.IntN(24) {
	case 0:
		c = newCertificate("spiffe://partner.example/other")
	case 1:
		c = newCertificate()
		c.dns = []string{"till.partner.example"}
	case 2:
		c.dns, c.emails = []string{"till.partner.example", "x.example"}, []string{"till@partner.example"}
	case 3:
		c = newCertificate()
		c.emails = []string{"till@partner.example"}
	case 4:
		c.commonName = "other"
	case 5:
		c.ends = longAgo.Add(time.Hour)
	case 6:
		c.begins = longTime.Add(-time.Hour)
	case 7:
		c.garbage = true
	case 8:
		c = newCertificate()
	}
	return &c
}

// spoilCredentials adds, doubles or breaks what is shown.
func (g caller) spoilCredentials(c *call) {
	places := []*[]header{&c.authorization, &c.idTokens, &c.apiKeys}
	place := pick(g.generator, places...)
	switch g.IntN(8) {
	case 0:
		*place = nil
	case 1:
		*place = slices.Concat(*place, *place)
	case 2:
		*place = append(*place, header{text: "", bad: true})
	case 3:
		c.authorization = []header{{text: "Digest abc", scheme: "digest"}}
	case 4:
		c.authorization = []header{{text: "Bearer a,Bearer b", comma: true}}
	case 5:
		c.authorization = []header{pick(g.generator, header{text: "Bearer  a b", scheme: "bearer", bad: true}, header{text: "Bearer ", scheme: "bearer", bad: true},
			header{text: "Basic YTpi=x", scheme: "basic", bad: true}, header{text: "Basic Og==", scheme: "basic", bad: true}, header{text: "bearer abc", scheme: "bearer"})}
	case 6:
		c.apiKeys = append(c.apiKeys, g.apiKey())
	case 7:
		t := g.token("id_token", pick(g.generator, g.m.providers...), "alice", demand{})
		c.idTokens = []header{{text: t.text(), token: t}}
	}
}

// serviceCall is a call that a route is for.
func (g caller) serviceCall() *call {
	i := g.IntN(len(g.m.service.routes))
	r := g.m.service.routes[i]
	c := g.common(r.path, r.method)
	c.policy, c.route, c.merged = "service/"+g.m.service.name, g.m.serviceIDs[i], false
	if r.plaintext && g.chance(3) || g.chance(20) {
		if !g.m.service.clear && !g.chance(4) {
			return c
		}
	} else {
		g.identify(c, r)
	}
	d := demand{}.with(g.m.service.authenticate).with(r.authenticate)
	if !g.chance(12) {
		s := g.statement(c, d)
		c.passports = []header{{text: s.text(), statement: s}}
	}
	if g.chance(8) {
		g.spoil(c, g.m.serviceIDs)
	}
	if g.chance(16) {
		c.passports = pick(g.generator, nil, slices.Concat(c.passports, c.passports), []header{{text: ""}}, []header{{text: "a,b", comma: true}}, []header{{text: "a.b.c"}})
	}
	return c
}

// identify makes the call come from a caller of the route.
func (g caller) identify(c *call, r serviceRoute) {
	callers := []string{"public", "web", "batch", "partner"}
	if len(r.callers) > 0 && !g.chance(8) {
		callers = r.callers
	}
	name := pick(g.generator, callers...)
	role := "service"
	if name == "public" || name == "partner" {
		role = "gateway"
	}
	c.principal = "spiffe://" + trustDomain + "/" + role + "/" + name
	cert := newCertificate(c.principal)
	switch g.IntN(60) {
	case 0:
		cert = newCertificate("spiffe://shop.example/service/web")
	case 1:
		cert.authority = "bad0"
	case 2:
		cert.ends = longAgo.Add(time.Hour)
	case 3:
		cert.garbage = true
	case 4:
		cert = newCertificate(c.principal, "spiffe://shop.example/service/web")
	case 5:
		cert.ends = g.now.Truncate(time.Second).Add(time.Duration(g.IntN(8)-7) * time.Second)
	case 6:
		return
	case 7:
		c.principal = pick(g.generator, "", c.principal+"x", strings.ToUpper(c.principal), "spiffe://evil.example/gateway/public")
	}
	c.certificate = &cert
}

// statement is a Passport that fits, or nearly so.
func (g caller) statement(c *call, d demand) *statement {
	now := g.now.Unix()
	gateway := "public"
	if _, known := g.m.passportKeys["partner"]; known && (g.m.service.gateways == nil || len(g.m.service.gateways) == 2) && g.chance(2) || g.chance(30) {
		gateway = "partner"
	}
	s := &statement{
		signer: publicKey, typ: "txntoken+jwt", audience: trustDomain, by: "spiffe://shop.example/gateway/" + gateway, subject: pick(g.generator, "alice", "alice", "bob"),
		issued: now - pick(g.generator, int64(0), 0, 3), expires: now + pick(g.generator, int64(45), 45, 2),
		provider: pick(g.generator, "staff", "staff", "staff", "partners", "chancery:api-keys", "nobody"), tenant: pick(g.generator, "acme", "acme", "acme", "acme", "globex", ""),
		groups: pick(g.generator, nil, []string{"sales"}, []string{"sales", "admins"}, []string{}), client: pick(g.generator, "web", "batch", ""),
		ip: pick(g.generator, "192.0.2.1", "10.1.2.3", ""), authn: pick(g.generator, "access_token", "access_token+id_token", "basic", "api_key", "client_certificate", ""),
		scopes: pick(g.generator, nil, []string{"read"}, []string{"read", "write"}), acr: pick(g.generator, "high", "low", ""),
		amr: pick(g.generator, nil, []string{"pwd", "otp"}, []string{"pwd"}), authTime: now - pick(g.generator, int64(1), 40, 41, 90, 91),
	}
	if !g.chance(4) {
		s.credentialIDs, s.credentialIssuedAt = pick(g.generator, []string{"t-1"}, []string{"t-1", "id-1"}), now-10
		s.credentialSubject = pick(g.generator, "", "", "alice", "bob")
	}
	if gateway == "partner" {
		s.signer = partnerKey
	}
	if len(d.anyOf) > 0 && !g.chance(12) {
		a := pick(g.generator, d.anyOf...)
		s.authn, s.provider = strings.Join(inPassportOrder(a.kinds()), "+"), a.source()
	}
	if d.acr != nil && !g.chance(4) {
		s.acr, s.amr, s.authTime = "high", []string{"pwd", "otp"}, now-1
	}
	if id := c.path; g.chance(2) && len(id) > 1 && id[1] != "" {
		s.bound = map[string]string{"order": pick(g.generator, decoded(id[1]), decoded(id[1]), "another")}
	}
	if g.chance(5) {
		g.spoilStatement(s)
	}
	return s
}

func (g caller) spoilStatement(s *statement) {
	now := g.now.Unix()
	switch g.IntN(10) {
	case 0:
		s.signer = pick(g.generator, publicKey, partnerKey, strangerKey)
	case 1:
		s.damage = pick(g.generator, badSignature, notAToken)
	case 2:
		s.audience = pick(g.generator, "other.example", "", "Shop.Example")
	case 3:
		s.by = pick(g.generator, "spiffe://shop.example/gateway/public", "spiffe://shop.example/gateway/partner", "spiffe://shop.example/service/orders")
	case 4:
		s.expires = now + pick(g.generator, int64(-4), -5, -6, -100)
		s.issued = s.expires - 45
	case 5:
		s.issued = now + pick(g.generator, int64(4), 5, 6, 100)
		s.expires = s.issued + 45
	case 6:
		s.issued, s.expires = now-1, now-1+pick(g.generator, int64(599), 600, 601, 100000)
	case 7:
		s.typ = pick(g.generator, "JWT", "at+jwt", "TXNTOKEN+JWT")
	case 8:
		s.anotherMemberInHead = true
	case 9:
		s.subject = pick(g.generator, "", "mallory")
	}
}
