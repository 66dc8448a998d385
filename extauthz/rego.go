package extauthz

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/chancery-mesh/chancery/extauthz/opaenvoy"
	"github.com/chancery-mesh/chancery/extauthz/policy"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// regoRule is a rule of a policy in Rego that must be true.
type regoRule struct {
	*rego.Query
	// name is what people know it by.
	name string
}

// regoPolicies compiles the policies that routes name.
func regoPolicies(p *chancerypb.Policy) (map[string]*rego.Policy, error) {
	policies := map[string]*rego.Policy{}
	for _, r := range p.GetRego() {
		var modules []mesh.RegoModule
		for _, m := range r.GetModules() {
			modules = append(modules, mesh.RegoModule{File: m.GetFile(), Text: m.GetText()})
		}
		compiled, err := compileRego(mesh.RegoUse{Modules: modules, V0: r.GetV0(), Data: p.GetData()})
		if err != nil {
			return nil, fmt.Errorf("rego %q: %w", r.GetName(), err)
		}
		if policies[r.GetName()] != nil {
			return nil, fmt.Errorf("rego %q stands twice", r.GetName())
		}
		policies[r.GetName()] = compiled
	}
	return policies, nil
}

// regoRule prepares what a route asks of a policy.
func (r *Rules) regoRule(rule *chancerypb.RegoRule) (*regoRule, error) {
	if rule == nil {
		return nil, nil
	}
	compiled := r.rego[rule.GetModule()]
	if compiled == nil {
		return nil, fmt.Errorf("there is no rego %q", rule.GetModule())
	}
	query, err := compiled.Prepare(context.Background(), rule.GetQuery(), regoOptions)
	if err != nil {
		return nil, fmt.Errorf("rego %q: %w", rule.GetModule(), err)
	}
	return &regoRule{query, rule.GetModule() + " " + rule.GetQuery()}, nil
}

// regoOptions have what cannot be evaluated deny, as in conditions.
var regoOptions = rego.Options{Strict: true}

func compileRego(use mesh.RegoUse) (*rego.Policy, error) {
	source := rego.Source{Data: map[string]any{}}
	for _, m := range use.Modules {
		source.Modules = append(source.Modules, rego.Module{File: m.File, Text: m.Text, Version: rego.Version(use.V0)})
	}
	for name, text := range use.Data {
		var values any
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&values); err != nil {
			return nil, fmt.Errorf("data %q: %w", name, err)
		}
		source.Data[name] = values
	}
	return rego.Compile(context.Background(), source)
}

// checkRego is for [mesh.Options].
func checkRego(use mesh.RegoUse) (mesh.Faults, []error) {
	compiled, err := compileRego(use)
	if faults, ok := errors.AsType[mesh.Faults](err); ok {
		return faults, nil
	}
	if err != nil {
		return mesh.Faults{{Message: err.Error()}}, nil
	}
	var queries []error
	for _, query := range use.Queries {
		_, err := compiled.Prepare(context.Background(), query, regoOptions)
		queries = append(queries, err)
	}
	return nil, queries
}

// evaluateRego asks the route's policy, which sees what the OPA-Envoy plugin shows
// and, as input.identity, what conditions see. Of a condition that allowed, it is
// no longer the rule that decided.
func (c *check) evaluateRego(ctx context.Context, in *policy.Input) verdict {
	if c.rule.rego == nil {
		return allowed
	}
	v := c.askRego(ctx, in)
	return c.conclude("rego", cmp.Or(c.Rule, c.rule.rego.name), v)
}

var errNoBoolean = errors.New("the rule is neither true nor false")

func (c *check) askRego(ctx context.Context, in *policy.Input) verdict {
	result, err := c.evalRego(ctx, in)
	switch yes, isBool := result.(bool); {
	case err == nil && yes:
		return allowed
	case err == nil && isBool:
		return policyDenied
	case err == nil:
		c.Cause = errNoBoolean
		return policyError
	case ctx.Err() != nil:
		c.Cause = err
		return cancelled
	default:
		c.Cause = err
		if errors.Is(err, rego.ErrUndefined) {
			return policyDenied
		}
		return policyError
	}
}

// evalRego returns what the policy says, and records which of its rules says so.
func (c *check) evalRego(ctx context.Context, in *policy.Input) (result any, err error) {
	query := c.rule.rego.Query
	c.Rule = query.Where(nil, nil)
	message, err := c.whole.Message()
	if err != nil {
		return nil, err
	}
	input, err := opaenvoy.RouteInput(message, opaenvoy.Route{Identity: in.Identity(), JSON: in.Request.Body})
	if err != nil {
		return nil, err
	}
	if c.hypothesis != nil { // nobody waits for it
		result, c.Rule, err = query.Explain(ctx, input, c.Time)
	} else {
		result, err = query.Eval(ctx, input, c.Time)
		c.Rule = query.Where(result, err)
	}
	if result != true {
		c.Values = opaenvoy.Values(input, query.Reads())
	}
	return result, err
}
