package envoy

import (
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/mesh"
)

const filterCallers = "envoy.filters.http.rbac"

// callersFilter keeps routes to their callers, whatever ext_authz says; it
// stands behind it, so that ext_authz has told of who was refused. By itself it
// lets nobody in.
func callersFilter() *hcmv3.HttpFilter {
	return httpFilter(filterCallers, &rbacv3.RBAC{Rules: allowed()})
}

// calledBy lets in the callers of r: workloads by their exact SPIFFE ID, and
// connections without a certificate where r serves such.
func calledBy(m *mesh.Mesh, r *mesh.Route) *anypb.Any {
	var callers []*rbacconfigv3.Principal
	for _, name := range r.Callers {
		id := identity.ID{Role: identity.RoleService, Name: name}
		if m.Gateway(name) != nil {
			id.Role = identity.RoleGateway
		}
		callers = append(callers, authenticated(&rbacconfigv3.Principal_Authenticated{
			PrincipalName: exact(id.SPIFFE(m.TrustDomain)),
		}))
	}
	if r.Plaintext {
		anybody := authenticated(&rbacconfigv3.Principal_Authenticated{})
		callers = append(callers, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: anybody}})
	}
	return typed(&rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: allowed(callers...)}})
}

func authenticated(who *rbacconfigv3.Principal_Authenticated) *rbacconfigv3.Principal {
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_Authenticated_{Authenticated: who}}
}

func allowed(callers ...*rbacconfigv3.Principal) *rbacconfigv3.RBAC {
	rules := &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_ALLOW}
	if len(callers) > 0 {
		rules.Policies = map[string]*rbacconfigv3.Policy{"callers": {
			Principals:  callers,
			Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
		}}
	}
	return rules
}

// answerAnybody lets routes that answer by themselves do so.
func answerAnybody(routes []*routev3.Route) {
	for _, r := range routes {
		if r.GetDirectResponse() != nil {
			setFilter(r, filterCallers, typed(&routev3.FilterConfig{Disabled: true}))
		}
	}
}
