// Package policy runs the rules of documents: CEL expressions (`allow:`) over
// what is known of a request.
//
//	user      id, groups, scopes; provider, who vouches for it; acr, amr and
//	          auth_time of the login; roles and permissions, which the documents'
//	          tables give to groups
//	client    id; owner and plan of its document, at gateways
//	caller    id (SPIFFE ID), name, role ("service" or "gateway"), in services
//	tenant    string
//	request   method, path, host, ip, headers and query (maps of lists), body
//	          (JSON, where the route has one); as they were sent: raw_path, and
//	          target (with the query)
//	params    map of path variables
//	passport  bound (map of facts that the gateway's route bound), in services
//	data      map of the data sets that the document lists
//	now       timestamp
//
// Beside CEL's own functions there are those for networks:
// cidr('10.0.0.0/8').containsIP(request.ip).
//
// Expressions are type-checked when they are compiled, so a misspelt field is
// a fault of the document, as is what is never there where the rule stands; and
// they are bounded in cost then and when they run. Errors name no value.
//
// Anything but true denies. What a request does not have (a tenant at an
// identity provider without tenants, a caller at a gateway or on a connection in
// the clear, a user there without a Passport) is an error to read and not an
// empty value, so a rule denies under negation too: !(tenant == 'evil') is no
// way around. Two things make up for a missing value, as everywhere in CEL:
// has(user.groups), and the other side of || where that is true (of && where
// that is false) by itself.
//
// The path and the host have one spelling, so that comparing them with one is
// enough also under negation: a path has plain what may come plain or encoded, as
// patterns do; a host is in lower case, without port and without the dot that may
// end it. A host that is no name and no address is missing.
//
// Header names are in lower case. Headers with a value that is not UTF-8, and
// query strings that do not decode or have a "#", are missing as a whole, and so
// are bodies that are not JSON with one reading (a member twice, also in other
// case, a number beyond a double). Whole numbers in JSON are int if they fit, all
// others double: both compare with each other, but only equal types are added or
// multiplied.
package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/chancery-mesh/chancery/internal/jose"
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

// Program is a compiled expression, safe for concurrent use.
type Program struct {
	program  cel.Program
	readings []reading
	// loops says that it may take long enough to be interrupted.
	loops bool
}

// Compile compiles a rule, or says everything that is wrong with it.
func Compile(source string) (*Program, []mesh.ExpressionFault) {
	return compile(source, cel.BoolType, "true or false")
}

// CompileBinding compiles an expression for a text, as [Compile] does.
func CompileBinding(source string) (*Program, []mesh.ExpressionFault) {
	return compile(source, cel.StringType, "a text")
}

// checking is held while an expression is checked: when cel-go meets the first name
// that is not declared, it writes to the environment, which all share.
var checking sync.Mutex

func compile(source string, want *cel.Type, word string) (*Program, []mesh.ExpressionFault) {
	env := environment()
	checking.Lock()
	ast, issues := env.Compile(source)
	checking.Unlock()
	if issues.Err() != nil {
		return nil, faults(issues)
	}
	if got := ast.OutputType(); got != want {
		return nil, fault("must be %s, but is of type %s%s", word, got, conversion(want, got))
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
	return &Program{program, readings(ast), hasLoops(ast)}, nil
}

// conversion says how to make a text of something of another type, where that can
// be done.
func conversion(want, got *cel.Type) string {
	convertible := []*cel.Type{cel.DynType, cel.IntType, cel.UintType, cel.DoubleType, cel.BoolType, cel.TimestampType, cel.DurationType}
	if want == cel.StringType && slices.Contains(convertible, got) {
		return ": write string(…) around it"
	}
	return ""
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
	v, err := p.run(ctx, in)
	if err != nil {
		return false, failure("rule", err)
	}
	return v == types.True, nil
}

// run spares those that cannot take long CEL's watch over ctx, which costs as much
// as they do.
func (p *Program) run(ctx context.Context, in *Input) (v ref.Val, err error) {
	if p.loops {
		v, _, err = p.program.ContextEval(ctx, in)
	} else {
		v, _, err = p.program.Eval(in)
	}
	return v, err
}

// failure says how an expression failed, and nothing else: CEL's own words have
// values in them, such as the key of a map or the text of a header.
func failure(what string, err error) error {
	for _, known := range failures {
		if strings.Contains(err.Error(), known) {
			return fmt.Errorf("evaluate %s: %s", what, known)
		}
	}
	return fmt.Errorf("evaluate %s: a function cannot take the value that it is given", what)
}

var failures = []string{
	errMissing.Error(), "no such key", "no such attribute", "no such overload", "index out of bounds", "type conversion error",
	"division by zero", "modulus by zero", "overflow", "actual cost limit exceeded", "operation interrupted",
}

// maxBound bounds a text that a binding makes, in bytes.
const maxBound = 256

// Bind returns the text that the expression makes of in. A text that names
// nothing, or that is long, is an error.
func (p *Program) Bind(ctx context.Context, in *Input) (string, error) {
	v, err := p.run(ctx, in)
	if err != nil {
		return "", failure("binding", err)
	}
	s, ok := v.Value().(string)
	if !ok || len(s) > maxBound || !jose.IsIdentifier(s) {
		return "", fmt.Errorf("evaluate binding: not a printable text of 1 to %d bytes", maxBound)
	}
	return s, nil
}
