package rego

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	oparego "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/chancery-mesh/chancery/mesh"
)

// explanation is what can be told of a query before anybody asks.
type explanation struct {
	// rules are those that the query names.
	rules []*ast.Rule
	// where they stand, and canAllow those that may come to true.
	where, canAllow string
	reads           []ast.Ref
}

func explain(c *ast.Compiler, query ast.Ref) explanation {
	e := explanation{rules: c.GetRules(query), reads: readings(c, query)}
	e.where = locations(e.rules)
	e.canAllow = locations(slices.DeleteFunc(slices.Clone(e.rules), func(r *ast.Rule) bool {
		return r.Else == nil && r.Head.Value != nil && r.Head.Value.Equal(ast.InternedTerm(false))
	}))
	return e
}

// Where says where what decided is written, as far as that is known without
// asking again: the place of an error, or of the rules that the query names,
// without those that are always false if the result is true. It is empty where
// there are none, and only data.
func (q *Query) Where(result any, err error) string {
	if e, ok := errors.AsType[*topdown.Error](err); ok && e.Location != nil && e.Location.File != "" {
		return location(e.Location)
	}
	if result == true {
		return q.canAllow
	}
	return q.where
}

// Reads returns the parts of the input that the query's rules may read, and those
// that they ask, in the order in which they are written.
func (q *Query) Reads() []ast.Ref { return q.reads }

// Explain is [Query.Eval], slower, with the place of the rule that came to the
// result.
func (q *Query) Explain(ctx context.Context, input ast.Value, now time.Time) (result any, where string, err error) {
	tracer := &ruleTracer{}
	result, err = q.run(ctx, input, now, oparego.EvalQueryTracer(tracer))
	if decided := q.among(tracer.ended); err == nil && len(decided) > 0 {
		return result, locations(decided), nil
	}
	return result, q.Where(result, err), err
}

// among returns those of rules that the query names.
func (q *Query) among(rules []*ast.Rule) []*ast.Rule {
	return slices.DeleteFunc(rules, func(rule *ast.Rule) bool {
		return !slices.ContainsFunc(q.rules, func(named *ast.Rule) bool {
			for ; named != nil; named = named.Else {
				if named == rule {
					return true
				}
			}
			return false
		})
	})
}

// ruleTracer remembers the rules that came to something.
type ruleTracer struct{ ended []*ast.Rule }

var _ topdown.QueryTracer = (*ruleTracer)(nil)

// Enabled implements [topdown.QueryTracer].
func (*ruleTracer) Enabled() bool { return true }

// Config implements [topdown.QueryTracer].
func (*ruleTracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent implements [topdown.QueryTracer].
func (t *ruleTracer) TraceEvent(e topdown.Event) {
	if rule, ok := e.Node.(*ast.Rule); ok && e.Op == topdown.ExitOp && !slices.Contains(t.ended, rule) {
		t.ended = append(t.ended, rule)
	}
}

// maxLocations bounds how many places are told.
const maxLocations = 4

// locations says where rules stand.
func locations(rules []*ast.Rule) string {
	rules = slices.Clone(rules)
	slices.SortFunc(rules, byLocation)
	var at []string
	for _, r := range rules {
		at = append(at, location(r.Location))
	}
	if at = slices.Compact(at); len(at) > maxLocations {
		at = append(at[:maxLocations], "…")
	}
	return strings.Join(at, ", ")
}

func byLocation(a, b *ast.Rule) int {
	return cmp.Or(cmp.Compare(a.Location.File, b.Location.File), cmp.Compare(a.Location.Row, b.Location.Row), cmp.Compare(a.Location.Col, b.Location.Col))
}

func location(l *ast.Location) string {
	return mesh.Position{File: l.File, Line: l.Row, Column: l.Col}.String()
}

// readings returns what the rules that a query names, and those that they ask,
// read of the input.
func readings(c *ast.Compiler, query ast.Ref) (reads []ast.Ref) {
	rules := c.GetRules(query)
	slices.SortFunc(rules, byLocation)
	for i := 0; i < len(rules); i++ { // it grows
		ast.WalkRefs(rules[i], func(ref ast.Ref) bool {
			read := fixed(ref)
			known := func(r ast.Ref) bool { return r.Equal(read) }
			if read.HasPrefix(ast.InputRootRef) && !slices.ContainsFunc(reads, known) {
				reads = append(reads, read)
			}
			return false
		})
		var asked []*ast.Rule
		for node := range c.Graph.Dependencies(rules[i]) {
			if rule, ok := node.(*ast.Rule); ok && !slices.Contains(rules, rule) {
				asked = append(asked, rule)
			}
		}
		slices.SortFunc(asked, byLocation)
		rules = append(rules, asked...)
	}
	return reads
}

// fixed returns the beginning of a reference, up to what depends on values.
func fixed(ref ast.Ref) ast.Ref {
	for i, term := range ref[1:] {
		switch term.Value.(type) {
		case ast.String, ast.Number:
		default:
			return ref[:i+1]
		}
	}
	return ref
}
