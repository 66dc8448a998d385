package extauthz

import (
	"context"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/mesh"
)

// check is one decision in the making.
type check struct {
	*decision

	server  *Server
	state   *State
	now     time.Time
	request request
	rule    *route
	params  map[string]string
}

func (c *check) judge(ctx context.Context, req *authv3.CheckRequest) verdict {
	if c.state == nil {
		return noState
	}
	c.policy = c.state.name
	var ok bool
	if c.request, ok = readRequest(req); !ok {
		return incompleteRequest
	}
	c.requestID, c.ip = c.request.requestID(), c.request.ip
	if v := c.match(); v != allowed {
		return v
	}
	if c.state.isGateway() {
		return c.judgeGateway(ctx)
	}
	return c.judgeService(ctx)
}

// match finds the route that Envoy says it matched, and matches once more: what
// a rule speaks of is then what it was written for, whatever Envoy does.
func (c *check) match() verdict {
	if c.request.policy != c.state.name {
		return unknownPolicy
	}
	if c.rule = c.state.routes[c.request.route]; c.rule == nil {
		return unknownRoute
	}
	c.route = c.rule.name
	if !mesh.IsCanonicalPath(c.request.path) {
		return ambiguousPath
	}
	var ok bool
	if c.params, ok = c.rule.path.Match(c.request.path); !ok {
		return routeMismatch
	}
	if c.rule.method != "" && c.rule.method != c.request.method {
		return routeMismatch
	}
	return allowed
}

// evaluate runs the route's rule on what the request itself says and on in,
// which holds whom it is for.
func (c *check) evaluate(ctx context.Context, in *policy.Input) verdict {
	if c.rule.allow == nil {
		return allowed
	}
	in.Now, in.Params = c.now, c.params
	in.Request = policy.Request{
		Method: c.request.method, Path: c.request.path, Host: c.request.host, IP: c.ip,
		Query: c.request.query, Headers: c.request.headers.all,
	}
	yes, err := c.rule.allow.Eval(ctx, in)
	switch {
	case err != nil && ctx.Err() != nil:
		c.cause = err
		return cancelled
	case err != nil:
		c.cause = err
		return policyError
	case !yes:
		return policyDenied
	}
	return allowed
}
