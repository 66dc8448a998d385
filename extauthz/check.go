package extauthz

import (
	"context"

	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/extauthz/wire"
	"github.com/chancery-mesh/chancery/mesh"
)

// check is one decision in the making.
type check struct {
	*decision

	server  *Server
	state   *State
	whole   *wire.Request
	request request
	rule    *route
	params  map[string]string
	// hypothesis is nil unless the request has not happened: nothing comes of the
	// decision then.
	hypothesis *Hypothesis
}

func (c *check) judge(ctx context.Context, r *wire.Request) verdict {
	if c.state == nil {
		return noState
	}
	c.decideBy(c.state)
	if r.Fault != nil {
		c.Cause = r.Fault
		return malformedRequest
	}
	if !r.HTTP {
		return incompleteRequest
	}
	c.whole, c.request = r, readRequest(r)
	c.decideBy(c.state.of(c.request.route))
	c.RequestID, c.IP = c.request.requestID(), c.request.ip
	c.Method, c.Path = c.request.method, c.request.path
	if c.isStale() {
		return c.conclude("contact", "", pdpStale)
	}
	if v := c.match(); v != allowed {
		return c.conclude("route", c.request.route, v)
	}
	c.note("route", c.Route, outcomeOK)
	c.Pattern = c.rule.path.String()
	if c.gateway {
		return c.judgeGateway(ctx)
	}
	return c.judgeService(ctx)
}

// decideBy chooses what decides.
func (c *check) decideBy(s *State) {
	c.state = s
	c.Policy, c.Revision, c.denyStatus = s.name, s.revision, s.denyStatus
	c.gateway, c.Recording = s.isGateway(), s.recording
}

// match finds the route that Envoy says it matched, and matches once more: what
// a rule speaks of is then what it was written for, whatever Envoy does.
func (c *check) match() verdict {
	if c.state.matchesRoutes || c.hypothesis != nil {
		return c.matchFirst()
	}
	if c.request.policy != c.state.name {
		return unknownPolicy
	}
	if c.rule = c.state.routes[c.request.route]; c.rule == nil {
		return unknownRoute
	}
	c.Route = c.rule.name
	if !mesh.IsCanonicalPath(c.request.path) {
		return ambiguousPath
	}
	if !c.matches(c.rule) {
		return routeMismatch
	}
	return allowed
}

// matchFirst finds the route by itself.
func (c *check) matchFirst() verdict {
	if !mesh.IsCanonicalPath(c.request.path) || c.hypothesis == nil && c.request.hasMendedPath() {
		return ambiguousPath
	}
	for _, r := range c.state.order {
		if c.matches(r) {
			c.rule, c.Route = r, r.name
			return allowed
		}
	}
	return routeMismatch
}

func (c *check) matches(r *route) (ok bool) {
	if !mesh.MethodMatches(r.method, c.request.method) {
		return false
	}
	c.params, ok = r.path.Match(c.request.path)
	return ok && c.state.leads(r, c.params)
}

// evaluate asks the route's rule and its policy, which must both allow, by what
// the request itself says and by in, which holds whom it is for.
func (c *check) evaluate(ctx context.Context, in *policy.Input) verdict {
	c.complete(in)
	if c.rule.maxBody > 0 && (c.request.isTruncated() || len(c.request.body) > int(c.rule.maxBody)) {
		return c.conclude("body", "", bodyTruncated)
	}
	if v := c.evaluateRule(ctx, in); v != allowed {
		return v
	}
	return c.evaluateRego(ctx, in)
}

func (c *check) evaluateRule(ctx context.Context, in *policy.Input) verdict {
	if c.rule.allow == nil {
		c.note("rule", "", outcomeSkipped)
		return allowed
	}
	c.Rule = c.rule.position
	v := c.applyRule(ctx, in)
	if v == policyDenied || v == policyError {
		c.Values = c.rule.allow.Values(in)
	}
	return c.conclude("rule", c.Rule, v)
}

func (c *check) applyRule(ctx context.Context, in *policy.Input) verdict {
	yes, err := c.rule.allow.Eval(ctx, in)
	switch {
	case err != nil && ctx.Err() != nil:
		c.Cause = err
		return cancelled
	case err != nil:
		c.Cause = err
		return policyError
	case !yes:
		return policyDenied
	}
	return allowed
}

// complete adds to in what the request says.
func (c *check) complete(in *policy.Input) {
	in.Now, in.Params, in.Tables = c.Time, c.params, c.state.tables
	in.Request = policy.Request{
		Method: c.request.method, Path: c.request.path, Host: c.request.host, IP: c.IP,
		Query: c.request.query, Target: c.request.target, Headers: c.request.headers.all,
	}
	if c.rule.maxBody > 0 && c.request.headers.sayJSON() {
		in.Request.Body = c.request.body
	}
}
