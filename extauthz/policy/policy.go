// Package policy runs the rules of documents: CEL expressions (`allow:`) over
// what is known of a request.
//
//	user      id, groups, scopes    client    id
//	caller    id (SPIFFE ID), name, role ("service" or "gateway")
//	tenant    string                params    map of path variables
//	request   method, path, host, ip, headers and query (maps of lists)
//	now       timestamp
//
// Expressions are type-checked when they are compiled, so a misspelt field is
// a fault of the document, and they are bounded in cost then and when they run.
//
// Anything but true denies. What a request does not have (a tenant at an
// identity provider without tenants, a caller at a gateway or on a connection in
// the clear, a user there without a Passport) is an error to read and not an
// empty value, so a rule denies under negation too: !(tenant == 'evil') is no
// way around. Two things make up for a missing value, as everywhere in CEL:
// has(user.groups), and the other side of || where that is true (of && where
// that is false) by itself.
//
// Header names are in lower case. Headers with a value that is not UTF-8, and
// query strings that do not decode, are missing as a whole.
package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/chancery-mesh/chancery/mesh"
)

const (
	// maxCost bounds one evaluation, estimated and run: at most some 50 ms.
	maxCost = 100_000
	// maxSource bounds an expression, in characters.
	maxSource = 4096
	// maxRegexp bounds a compiled regular expression, in instructions.
	maxRegexp = 2000
	// maxDepth bounds how deep an expression nests.
	maxDepth = 50
	// interruptEvery is how many steps of a comprehension pass between looks at
	// the context.
	interruptEvery = 100
)

// Program is a compiled rule, safe for concurrent use.
type Program struct{ program cel.Program }

// Compile compiles an expression, or says everything that is wrong with it.
func Compile(source string) (*Program, []mesh.ExpressionFault) {
	env := environment()
	ast, issues := env.Compile(source)
	if issues.Err() != nil {
		return nil, faults(issues)
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fault("must be true or false, but is of type %s", ast.OutputType())
	}
	estimate, err := env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, fault("cost cannot be estimated: %v", err)
	}
	if estimate.Max > maxCost {
		return nil, fault("may cost %d to evaluate, which is more than %d: "+
			"do not nest loops, and match shorter strings", estimate.Max, maxCost)
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost),
		cel.InterruptCheckFrequency(interruptEvery))
	if err != nil {
		return nil, fault("%v", err)
	}
	return &Program{program}, nil
}

// Check returns what is wrong with an expression; it fits
// [mesh.Options.CheckExpression].
func Check(source string) []mesh.ExpressionFault {
	_, faults := Compile(source)
	return faults
}

func fault(format string, args ...any) []mesh.ExpressionFault {
	return []mesh.ExpressionFault{{Line: 1, Column: 1, Message: fmt.Sprintf(format, args...)}}
}

func faults(issues *cel.Issues) []mesh.ExpressionFault {
	var list []mesh.ExpressionFault
	for _, e := range issues.Errors() {
		list = append(list, mesh.ExpressionFault{
			// CEL counts columns from 0.
			Line: max(e.Location.Line(), 1), Column: max(e.Location.Column(), 0) + 1,
			Message: strings.TrimSuffix(e.Message, " (in container '')"),
		})
	}
	return list
}

// Eval reports whether the rule allows in. Where it cannot tell, it returns
// false and why.
func (p *Program) Eval(ctx context.Context, in *Input) (bool, error) {
	if p == nil || in == nil {
		return false, errors.New("evaluate rule: no rule or no input")
	}
	v, _, err := p.program.ContextEval(ctx, in)
	if err != nil {
		return false, fmt.Errorf("evaluate rule: %w", err)
	}
	return v == types.True, nil
}
