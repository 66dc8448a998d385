package envoy

import (
	"net/http"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/chancery-mesh/chancery/mesh"
)

// Names of the routes that are not a document's.
const (
	routeAmbiguous   = "ambiguous-path"
	routeNotFound    = "not-found"
	routeMisdirected = "misdirected"
	routeTwoNames    = "two-names"
)

// virtualHost closes routes on both sides: what is ambiguous never gets to
// them, and what they do not match meets a 404. Envoy would skip ext_authz for
// a request without a route.
func virtualHost(name string, domains []string, routes []*routev3.Route) *routev3.VirtualHost {
	all := make([]*routev3.Route, 0, len(routes)+2)
	all = append(all, direct(routeAmbiguous, ambiguous(), http.StatusBadRequest))
	all = append(all, routes...)
	all = append(all, direct(routeNotFound, everything(), http.StatusNotFound))
	return &routev3.VirtualHost{Name: name, Domains: domains, Routes: all}
}

// anyHost is the domain of the virtual host that takes what no other takes.
var anyHost = []string{"*"}

// direct answers by itself, without ext_authz.
func direct(name string, match *routev3.RouteMatch, status uint32) *routev3.Route {
	r := &routev3.Route{
		Name:  name,
		Match: match,
		Action: &routev3.Route_DirectResponse{
			DirectResponse: &routev3.DirectResponseAction{Status: status},
		},
	}
	setFilter(r, filterAuthz, unchecked())
	return r
}

// routeMatch selects the requests that match does.
func routeMatch(match mesh.Match) *routev3.RouteMatch {
	m := &routev3.RouteMatch{}
	if path, ok := match.Path.Literal(); ok {
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: path}
	} else {
		m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(match.Path.Regexp())}
	}
	if match.Method != "" {
		m.Headers = []*routev3.HeaderMatcher{headerMatcher(":method", methodMatcher(match.Method))}
	}
	return m
}

// methodMatcher matches as [mesh.MethodMatches] does.
func methodMatcher(method string) *matcherv3.StringMatcher {
	if method == http.MethodGet {
		return expression(http.MethodGet + "|" + http.MethodHead)
	}
	return exact(method)
}

// ambiguous selects paths that not everybody reads alike.
func ambiguous() *routev3.RouteMatch {
	m := everything()
	canonical := headerMatcher(":path", expression(mesh.CanonicalPath+`(?:\?.*)?`))
	canonical.InvertMatch = true
	m.Headers = []*routev3.HeaderMatcher{canonical}
	return m
}

func everything() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

func headerMatcher(name string, value *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                 name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: value},
	}
}

// rewritten makes r send the path on as to says.
func rewritten(r *routev3.Route, path, to mesh.Pattern) {
	expression, substitution := path.Rewrite(to)
	r.GetRoute().RegexRewrite = &matcherv3.RegexMatchAndSubstitute{
		Pattern:      regex(expression),
		Substitution: substitution,
	}
}
