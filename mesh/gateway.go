package mesh

import (
	"fmt"
	"slices"
)

func (s scope) gateway(form *gatewayForm) *Gateway {
	g := &Gateway{
		Name:      s.name(),
		Profile:   form.Profile,
		Listen:    form.Listen.AddrPort,
		TLS:       s.gatewayTLS(form),
		Tenants:   form.Tenants,
		Answers:   s.answers(form.DenyStatus, form.MaxStaleness, form.Data),
		Decisions: s.decisions(form.Decisions),
		PeerLimit: s.bucket("peerLimit", form.PeerLimit.Requests, form.PeerLimit.Per, form.PeerLimit.Burst),
	}
	s.oneNamespace()
	if form.Tenants != nil && !s.tenants {
		s.fault("tenants", "refuses everybody: no document says which tenant anybody is of, such as claims.tenant of an IdentityProvider")
	}
	g.Authentication = s.gatewayAuthentication(form)
	names := make([]name, len(form.Routes))
	for i, route := range form.Routes {
		names[i] = route.Name
	}
	for i, routeName := range s.routeNames(names) {
		g.Routes = append(g.Routes, s.gatewayRoute(g, fmt.Sprintf("routes[%d]", i), routeName, form.Routes[i]))
	}
	s.gatewayReachable(g.Routes)
	rules := make([]*RegoRule, len(g.Routes))
	for i, route := range g.Routes {
		rules[i] = route.Rego
	}
	s.regoRules(rules, g.Data)
	return g
}

// oneNamespace checks that no service has the gateway's name: callers could not
// tell them apart.
func (s scope) oneNamespace() {
	if service := s.documents.Get(DocumentID{KindService, s.document.ID.Name}); service != nil {
		s.fault("name", "is the name of %s, too: rename one", service.describe())
	}
}

// gatewayAuthentication is that of routes that say nothing else.
func (s scope) gatewayAuthentication(form *gatewayForm) Authentication {
	const path = "authenticate"
	a := s.authentication(path, form.Authenticate, Authentication{Tenant: s.tenants})
	if form.Profile == ProfilePrivate || s.document.faulted("profile") || s.document.faulted(path) {
		return a
	}
	switch {
	case a.Anonymous:
		s.fault(join(path, "anonymous"), "lets anybody into all of a gateway of profile %s: remove it, and write anonymous: true in the routes that anybody may see", form.Profile)
	case len(a.AnyOf) == 0:
		s.fault(path, "is required by profile %s: write which credentials must be there, such as {accessToken: IDENTITYPROVIDER}; what anybody may see has anonymous: true in its route", form.Profile)
	}
	return a
}

func (s scope) gatewayRoute(g *Gateway, path, name string, form gatewayRouteForm) GatewayRoute {
	r := GatewayRoute{
		Name:      name,
		Match:     Match(form.Match),
		To:        form.To,
		Rewrite:   form.Rewrite,
		RateLimit: s.rateLimit(path+".rateLimit", form.RateLimit),
		MaxBody:   uint32(form.Body),

		Authentication: s.authentication(path+".authenticate", form.Authenticate, g.Authentication),
	}
	known := Expression{AtGateway: true, HasBody: r.MaxBody > 0, Params: r.Match.Path.Variables(), Data: g.Data}
	r.Allow, r.AllowPosition = s.rule(path, form.Allow, known)
	r.Rego = s.regoRule(path, form.Rego)
	r.Bind = s.bind(path, form.Bind, known)
	if to, ok := r.ToVariable(); !ok {
		s.reference(path+".to", r.To, KindService)
	} else if !slices.Contains(r.Match.Path.Variables(), to) {
		s.fault(path+".to", "{%s} is not in match.path: write it there, or name a service", to)
	}
	s.rewrite(path, r)
	return r
}

func (s scope) bind(route string, form map[string]expression, known Expression) map[string]string {
	if form == nil {
		return nil
	}
	bound := make(map[string]string, len(form))
	for name, source := range form {
		s.expression(route, "bind."+name, known.of(source), s.options.CheckBinding)
		bound[name] = string(source)
	}
	return bound
}

func (s scope) rewrite(path string, r GatewayRoute) {
	if r.Rewrite.IsZero() {
		return
	}
	if !r.Rewrite.HasRest() || !r.Match.Path.HasRest() {
		s.fault(path+".rewrite", "must end in /**, and so must match.path: the rest that it stands for is kept")
	}
	for _, variable := range r.Rewrite.Variables() {
		if !slices.Contains(r.Match.Path.Variables(), variable) {
			s.fault(path+".rewrite", "{%s} is not in match.path: write it there, or remove it", variable)
		}
	}
}

// gatewayReachable is reachable for gateways: a route to a {variable} lets
// through what is no service's name, so it hides its equals alone.
func (s scope) gatewayReachable(routes []GatewayRoute) {
	matches := make([]Match, len(routes))
	for i, r := range routes {
		matches[i] = r.Match
	}
	hides := func(i, j int) bool {
		if _, ok := routes[i].ToVariable(); ok {
			return matches[i] == matches[j]
		}
		return matches[i].covers(matches[j])
	}
	s.reachable(matches, hides)
}

// ToVariable returns x if To is "{x}".
func (r GatewayRoute) ToVariable() (name string, ok bool) { return variable("/" + r.To) }
