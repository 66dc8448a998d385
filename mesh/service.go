package mesh

import (
	"fmt"
	"slices"
	"time"
)

func (s scope) service(form *serviceForm) *Service {
	service := &Service{
		Name:      s.name(),
		Tier:      form.Tier,
		MTLS:      form.MTLS,
		Plaintext: s.plaintext(form),
		Uses:      form.Uses,
		Gateways:  s.gateways(form),
		Answers:   s.answers(form.DenyStatus, form.MaxStaleness, form.Data),
	}
	base := s.serviceAuthentication(service, "authenticate", form.Authenticate, Authentication{Tenant: s.tenants})
	for i, upstream := range form.Uses {
		s.reference(fmt.Sprintf("uses[%d]", i), upstream, KindService)
	}
	s.callers("callers", form.Callers, service.Gateways)
	names := make([]name, len(form.Routes))
	matches := make([]Match, len(form.Routes))
	for i, route := range form.Routes {
		names[i], matches[i] = route.Name, Match(route.Match)
	}
	for i, routeName := range s.routeNames(names) {
		path := fmt.Sprintf("routes[%d]", i)
		s.callers(path+".callers", form.Routes[i].Callers, service.Gateways)
		route := s.route(service, path, routeName, form.Routes[i])
		route.Authentication = s.serviceAuthentication(service, path+".authenticate", form.Routes[i].Authenticate, base)
		if route.Callers == nil {
			route.Callers = form.Callers
		}
		s.plaintextCallers(path, service, &route)
		if !service.HasSidecar() {
			s.withoutSidecar(path, &route)
		}
		service.Routes = append(service.Routes, route)
	}
	s.reachable(matches, func(i, j int) bool { return matches[i].covers(matches[j]) })
	rules := make([]*RegoRule, len(service.Routes))
	for i, route := range service.Routes {
		rules[i] = route.Rego
	}
	s.regoRules(rules, service.Data)
	return service
}

// serviceAuthentication refuses what only gateways, and what no sidecar, can
// tell.
func (s scope) serviceAuthentication(service *Service, path string, form *authenticateForm, base Authentication) Authentication {
	if form != nil && !service.HasSidecar() {
		s.fault(path, `is demanded by nobody with "mtls: off": demand it at the gateways, or give the service a sidecar`)
	}
	for _, key := range []string{"introspect", "clients"} {
		if s.document.written(join(path, key)) {
			s.fault(join(path, key), "is for gateways alone: write it there, and remove it here")
		}
	}
	return s.authentication(path, form, base)
}

// withoutSidecar refuses what only a sidecar can enforce, on a route of a service
// that is reached past its own.
func (s scope) withoutSidecar(path string, route *Route) {
	if route.Allow != "" && route.Allow != "true" {
		s.fault(path+".allow", `is decided by nobody with "mtls: off": write "true" here and the rule into the gateways' routes, or give the service a sidecar`)
	}
	if route.Rego != nil {
		s.fault(path+".rego", `is decided by nobody with "mtls: off": ask it at the gateways' routes, or give the service a sidecar`)
	}
	if route.MaxBody != 0 {
		s.fault(path+".body", `is read by nobody with "mtls: off": read it at the gateways' routes, or give the service a sidecar`)
	}
	if route.RateLimit != nil {
		s.fault(path+".rateLimit", `is enforced by nobody with "mtls: off": limit the gateways' routes, or give the service a sidecar`)
	}
}

// gateways returns the gateways that the service names, else all.
func (s scope) gateways(form *serviceForm) []string {
	if form.Gateways == nil {
		return s.names[KindGateway]
	}
	for i, gateway := range form.Gateways {
		s.reference(fmt.Sprintf("gateways[%d]", i), gateway, KindGateway)
	}
	return slices.Sorted(slices.Values(form.Gateways))
}

// callers checks that each caller is there, and can come at all: a service must
// use this one, a gateway's Passports must be taken.
func (s scope) callers(path string, callers, gateways []string) {
	for i, caller := range callers {
		path := fmt.Sprintf("%s[%d]", path, i)
		if caller == callerPlaintext {
			s.plaintextCaller(path)
			continue
		}
		document := s.reference(path, caller, KindService, KindGateway)
		if document == nil {
			continue
		}
		name := s.document.ID.Name
		form, isService := document.form.(*serviceForm)
		switch {
		case isService && !document.faulted("uses") && !slices.Contains(form.Uses, name):
			s.fault(path, "%s does not use %q, so it cannot call: add %q to its uses, or remove it here", document.describe(), name, name)
		case !isService && !slices.Contains(gateways, caller):
			s.fault(path, "%q is not in gateways, so its Passports are not taken: add it there, or remove it here", caller)
		}
	}
}

// plaintextCaller checks that naming plaintext as a caller says anything.
func (s scope) plaintextCaller(path string) {
	switch form := s.document.form.(*serviceForm); {
	case s.document.faulted("mtls"), form.MTLS == MTLSPermissive:
	case form.MTLS == MTLSOff:
		s.fault(path, "says nothing with mtls: off, where all connections are in the clear: remove it")
	default:
		s.fault(path, "never calls with mtls: strict: remove it, or write mtls: permissive")
	}
}

func (s scope) route(service *Service, path, name string, form routeForm) Route {
	r := Route{
		Name:           name,
		Match:          Match(form.Match),
		Callers:        form.Callers,
		Timeout:        form.Timeout.std(),
		Retries:        s.retries(path, form),
		CircuitBreaker: s.circuitBreaker(path+".circuitBreaker", form.CircuitBreaker),
		RateLimit:      s.rateLimit(path+".rateLimit", form.RateLimit),
		MaxBody:        uint32(form.Body),
	}
	known := Expression{HasBody: r.MaxBody > 0, Params: r.Match.Path.Variables(), Data: service.Data}
	r.Allow, r.AllowPosition = s.rule(path, form.Allow, known)
	r.Rego = s.regoRule(path, form.Rego)
	return r
}

func (s scope) retries(path string, form routeForm) *Retries {
	if form.Retries == nil {
		return nil
	}
	if form.Retries.PerTry > form.Timeout {
		s.fault(path+".retries.perTry", "is longer than the route's timeout (%s), which bounds all attempts together: lower it, or raise that", form.Timeout.std())
	}
	return &Retries{
		Attempts: form.Retries.Attempts,
		On:       form.Retries.On,
		PerTry:   form.Retries.PerTry.std(),
	}
}

// defaultMaxEjectFor is Envoy's own default.
const defaultMaxEjectFor = 5 * time.Minute

func (s scope) circuitBreaker(path string, form *circuitBreakerForm) *CircuitBreaker {
	if form == nil {
		return nil
	}
	longest := form.MaxEjectFor.std()
	if longest == 0 {
		longest = max(defaultMaxEjectFor, form.EjectFor.std())
	}
	if longest < form.EjectFor.std() {
		s.fault(path+".maxEjectFor", "is shorter than ejectFor (%s): raise it, or lower that", form.EjectFor.std())
	}
	for _, key := range []string{"ejectFor", "maxEjectFor"} {
		if form.Consecutive5xx == nil && s.document.written(join(path, key)) {
			s.fault(join(path, key), "has no effect without consecutive5xx: write that, too, or remove the key")
		}
	}
	return &CircuitBreaker{
		MaxConnections: form.MaxConnections,
		MaxPending:     form.MaxPending,
		MaxRequests:    form.MaxRequests,
		MaxRetries:     form.MaxRetries,
		Consecutive5xx: form.Consecutive5xx,
		EjectFor:       form.EjectFor.std(),
		MaxEjectFor:    longest,
	}
}
