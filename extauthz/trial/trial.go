// Package trial tries documents: it decides, by the documents alone, about
// requests that nobody made. Keys, tokens and passwords are made up for it, so it
// needs no identity provider and no secret, and nothing that it makes is good
// anywhere else.
package trial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

// Court tries the documents of a mesh. It is for one goroutine.
type Court struct {
	mesh      *mesh.Mesh
	providers map[string]*issuer
	accounts  *accounts
	gateways  map[string]*passport.Signer
	// servers decide for gateways and services, by the names that both share.
	servers map[string]*extauthz.Server
	answers answers
}

// New returns a court for a mesh.
func New(m *mesh.Mesh) (*Court, error) {
	c := &Court{
		mesh: m, providers: map[string]*issuer{}, gateways: map[string]*passport.Signer{},
		servers: map[string]*extauthz.Server{}, answers: answers{},
	}
	for _, d := range m.Providers {
		p, err := newIssuer(d)
		if err != nil {
			return nil, err
		}
		c.providers[d.Name] = p
	}
	for _, g := range m.Gateways {
		signer, err := newSigner()
		if err != nil {
			return nil, err
		}
		c.gateways[g.Name] = signer
	}
	var err error
	c.accounts, err = newAccounts(m)
	return c, err
}

// tellsAll redacts nothing: what did not happen is about nobody.
var tellsAll = &chancerypb.Decisions{Ip: "keep"}

// server returns what decides for the gateway or service of a test.
func (c *Court) server(t *mesh.Test) (*extauthz.Server, error) {
	name := t.Gateway + t.Service
	if s := c.servers[name]; s != nil {
		return s, nil
	}
	s, err := extauthz.New(extauthz.Config{
		Logger: slog.New(slog.DiscardHandler), Introspector: c.answers,
		Signer: func() *passport.Signer { return c.gateways[t.Gateway] },
	})
	if err != nil {
		return nil, err
	}
	state, err := c.state(t)
	if err != nil {
		return nil, err
	}
	s.SetState(state)
	c.servers[name] = s
	return s, nil
}

func (c *Court) state(t *mesh.Test) (*extauthz.State, error) {
	keys := extauthz.Keys{Accounts: c.accounts.all, Revocations: &revocation.Index{}}
	var policy *chancerypb.Policy
	if g := c.mesh.Gateway(t.Gateway); g != nil {
		policy = translate.Gateway(c.mesh, g)
		for _, p := range c.providers {
			keys.Providers = append(keys.Providers, p.Provider)
		}
	} else if s := c.mesh.Service(t.Service); s != nil {
		policy = translate.Service(c.mesh, s)
		var err error
		if keys.Passports, err = c.passportKeys(); err != nil {
			return nil, err
		}
	} else {
		return nil, fmt.Errorf("test %q: its gateway or service is not in the documents", t.Name)
	}
	policy.Decisions = tellsAll
	rules, err := extauthz.Compile(policy)
	if err != nil {
		return nil, err
	}
	return rules.With(keys)
}

// spiffeID returns that of a gateway or service.
func spiffeID(m *mesh.Mesh, name string) string {
	id := identity.ID{Role: identity.RoleService, Name: name}
	if m.Gateway(name) != nil {
		id.Role = identity.RoleGateway
	}
	return id.SPIFFE(m.TrustDomain)
}

// Verdict is how a case ended.
type Verdict struct {
	Test   *mesh.Test
	Case   *mesh.TestCase
	Record *extauthz.Record
	// Faults are what is not as it was expected; none if all is.
	Faults []string
}

// Try decides about the requests of a test. An error says that one could not be
// made.
func (c *Court) Try(ctx context.Context, t *mesh.Test) ([]Verdict, error) {
	server, err := c.server(t)
	if err != nil {
		return nil, err
	}
	verdicts := make([]Verdict, 0, len(t.Cases))
	for i := range t.Cases {
		v := Verdict{Test: t, Case: &t.Cases[i]}
		h, err := c.request(t, v.Case)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", v.Case.Position, v.Case.Name, err)
		}
		v.Record = server.Explain(ctx, h)
		v.Faults = faults(v.Case, v.Record)
		verdicts = append(verdicts, v)
	}
	return verdicts, ctx.Err()
}

// faults compares a decision with what was expected.
func faults(c *mesh.TestCase, r *extauthz.Record) (faults []string) {
	want, got := "deny", "deny"
	if c.Allow {
		want = "allow"
	}
	if r.Allowed() {
		got = "allow"
	}
	differ := func(what, want, got string) {
		if want != got {
			faults = append(faults, fmt.Sprintf("%s is %s, want %s", what, got, want))
		}
	}
	differ("decision", want, got)
	if c.Status != 0 {
		differ("status", fmt.Sprint(c.Status), fmt.Sprint(r.Status))
	}
	if c.Reason != "" {
		differ("reason", c.Reason, r.Reason)
	}
	if c.Route != "" {
		name, _, _ := strings.Cut(r.Route, " ") // what it matches comes after its name
		differ("route", c.Route, name)
	}
	return faults
}

// request makes the request of a case, with everything that it comes with.
func (c *Court) request(t *mesh.Test, k *mesh.TestCase) (*extauthz.Hypothesis, error) {
	h := &extauthz.Hypothesis{
		Method: k.Request.Method, Host: k.Request.Host, Target: k.Request.Target, Body: k.Request.Body, IP: k.Request.IP,
		Time: k.At, Introspect: true,
	}
	if k.At.IsZero() {
		h.Time = time.Now()
	}
	if k.Caller != "" {
		h.Caller = spiffeID(c.mesh, k.Caller)
	}
	for _, header := range k.Request.Headers {
		h.Headers = append(h.Headers, extauthz.HypotheticalHeader{Name: header[0], Value: header[1]})
	}
	var errs []error
	add := func(name, prefix, value string, err error) {
		if value != "" {
			h.Headers = append(h.Headers, extauthz.HypotheticalHeader{Name: name, Value: prefix + value})
		}
		errs = append(errs, err)
	}
	with := &k.With
	token, err := c.accessToken(with.AccessToken, h.Time)
	add("authorization", "Bearer ", token, err)
	token, err = c.idToken(with.IDToken, h.Time)
	add("x-id-token", "", token, err)
	add("x-api-key", "", c.accounts.keys[with.APIKey], nil)
	add("authorization", "Basic ", c.accounts.basic(with.Basic), nil)
	token, err = c.passport(t, k, h.Time)
	add(passport.Header, "", token, err)
	if with.Certificate != nil || with.Subject != "" {
		h.Certificate, err = newCertificate(with.Certificate, with.Subject, h.Time)
		errs = append(errs, err)
	}
	return h, errors.Join(errs...)
}
