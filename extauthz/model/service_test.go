package model_test

import (
	"slices"
	"strings"
	"time"
)

// serviceDecides is what the sidecar of a service answers.
func (m *model) serviceDecides(c *call) outcome {
	o := outcome{IP: network(address(c.address))}
	who, v := m.atService(c, &o)
	o.describe(who)
	return m.conclude(o, v, m.service.denyStatus)
}

func (m *model) atService(c *call, o *outcome) (*identity, refusal) {
	if m.isStale(m.service.maxStaleness, c.now) {
		return nil, down("pdp_stale")
	}
	if c.policy != "service/"+m.service.name {
		return nil, down("unknown_policy")
	}
	i := slices.Index(m.serviceIDs, c.route)
	if i < 0 {
		return nil, down("unknown_route")
	}
	if c.spoilt {
		return nil, badRequest("path_ambiguous")
	}
	r := &m.service.routes[i]
	params, ok := matches(r.path, c.path)
	if !ok || !takes(r.method, c.method) {
		return nil, forbidden("route_mismatch")
	}
	f := m.factsOf(c, params, r.body, m.service.data)
	clear := c.principal == "" && c.certificate == nil
	o.Caller = c.principal
	if v := m.caller(c, r, clear); v != none {
		return nil, v
	}
	if !clear {
		f.callerID = c.principal
		parts := strings.Split(c.principal, "/")
		f.callerRole, f.caller = parts[3], parts[4]
	}
	d := demand{tenant: m.speakOfTenants()}.with(m.service.authenticate).with(r.authenticate)
	switch {
	case clear && !m.service.clear && len(c.passports) > 0:
		return nil, refused("passport_in_clear")
	case clear && !m.service.clear, d.anonymous && len(c.passports) == 0:
		return nil, evaluate(&r.allow, f, c, r.body)
	}
	s, v := m.passport(c)
	if v != none {
		return nil, v
	}
	who := s.identity()
	o.IP, f.ip = network(s.ip), s.ip
	if v := m.revocation(who, c.now); v != none {
		return who, v
	}
	if len(d.anyOf) > 0 && !slices.ContainsFunc(d.anyOf, s.meets) {
		return who, refused("passport_credentials_missing")
	}
	if v := d.login(s.acr, s.amr, who.authTime, c.now); v != none {
		return who, v
	}
	if v := m.tenant(d, s.tenant, nil); v != none {
		return who, v
	}
	f.who(who)
	f.bound, f.provider = s.bound, s.provider
	return who, evaluate(&r.allow, f, c, r.body)
}

// caller judges the workload that calls, by the route's callers and by what its
// certificate is now.
func (m *model) caller(c *call, r *serviceRoute, clear bool) refusal {
	if clear {
		if r.plaintext {
			return none
		}
		return forbidden("caller_not_allowed")
	}
	name := func(caller string) bool {
		role := "service"
		if caller == m.gateway.name || caller == "partner" {
			role = "gateway"
		}
		return c.principal == "spiffe://"+trustDomain+"/"+role+"/"+caller
	}
	cert := c.certificate
	switch {
	case !slices.ContainsFunc(r.callers, name):
		return forbidden("caller_not_allowed")
	case m.noTrust:
		return down("no_trust")
	case cert == nil:
		return forbidden("caller_certificate_missing")
	case cert.garbage || len(cert.uris) != 1:
		return forbidden("caller_certificate_invalid")
	case cert.uris[0] != c.principal:
		return forbidden("caller_certificate_mismatch")
	case cert.authority != authority,
		slices.ContainsFunc(m.revoked, func(r certificate) bool { return r.fingerprint() == cert.fingerprint() }):
		return forbidden("caller_certificate_revoked")
	case c.now.After(cert.ends.Add(certificateSkew)):
		return forbidden("caller_certificate_expired")
	}
	return none
}

// passportSkew is tolerated between gateways and services, and longest what is
// believed of a Passport's life.
const (
	passportSkew = 5 * time.Second
	longest      = 10 * time.Minute
)

func (m *model) passport(c *call) (*statement, refusal) {
	if len(c.passports) == 0 {
		return nil, refused("passport_missing")
	}
	if len(c.passports) > 1 || c.passports[0].comma {
		return nil, refused("passport_ambiguous")
	}
	var taken []passportKey
	owner := map[string]string{}
	for gateway, keys := range m.passportKeys {
		if slices.Contains(m.service.gateways, gateway) || m.service.gateways == nil {
			for _, k := range keys {
				taken = append(taken, k)
				owner[k.thumbprint()] = "spiffe://" + trustDomain + "/gateway/" + gateway
			}
		}
	}
	if len(taken) == 0 {
		return nil, down("no_keys")
	}
	s := c.passports[0].statement
	if s == nil || s.damage == notAToken || s.typ != "txntoken+jwt" || s.anotherMemberInHead {
		return nil, refused("passport_malformed")
	}
	i := slices.IndexFunc(taken, func(k passportKey) bool { return k.thumbprint() == s.signer.thumbprint() })
	switch {
	case i < 0:
		return nil, refused("passport_unknown_key")
	case s.damage == badSignature:
		return nil, refused("passport_signature_invalid")
	case s.subject == "" || s.audience == "" || s.expires <= s.issued:
		return nil, refused("passport_malformed")
	}
	return s, s.judge(taken[i], owner[taken[i].thumbprint()], c.now)
}

func (s *statement) judge(k passportKey, owner string, now time.Time) refusal {
	issued, expires := time.Unix(s.issued, 0), time.Unix(s.expires, 0)
	switch {
	case s.by != owner:
		return refused("passport_gateway_mismatch")
	case !k.until.IsZero() && !now.Before(k.until.Add(passportSkew)):
		return refused("passport_key_expired")
	case s.audience != trustDomain:
		return refused("passport_audience_mismatch")
	case expires.Sub(issued) > longest:
		return refused("passport_lifetime")
	case issued.After(now.Add(passportSkew)):
		return refused("passport_not_yet_valid")
	case !now.Before(expires.Add(passportSkew)):
		return refused("passport_expired")
	case !slices.Contains(k.providers, s.provider):
		return refused("passport_provider_not_accepted")
	case k.tenants != nil && !slices.Contains(k.tenants, s.tenant):
		return refused("passport_tenant_not_accepted")
	}
	return none
}

func (s *statement) identity() *identity {
	id := &identity{
		user: s.subject, tenant: s.tenant, groups: s.groups, client: s.client, scopes: s.scopes, acr: s.acr, amr: s.amr, others: s.credentialIDs, subject: s.credentialSubject,
	}
	if s.authn != "basic" { // a Users document may have the name of a provider
		id.provider = s.provider
	}
	if s.credentialIssuedAt != 0 {
		id.issuedAt = time.Unix(s.credentialIssuedAt, 0)
	}
	if s.authTime != 0 {
		id.authTime = time.Unix(s.authTime, 0)
	}
	return id
}

// meets reports whether all credentials of an alternative were shown at the
// gateway, and by who vouches for the user where that matters.
func (s *statement) meets(a credentials) bool {
	shown := strings.Split(s.authn, "+")
	if slices.ContainsFunc(a.kinds(), func(kind string) bool { return !slices.Contains(shown, kind) }) {
		return false
	}
	return a.accessToken == "" && a.idToken == "" && a.basic == "" || s.provider == a.source()
}
