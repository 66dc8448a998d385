package policy

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/chancery-mesh/chancery/mesh"
)

// reading is something that an expression reads: request.headers, params['id'].
type reading struct {
	path []string
	// line and column count from 1.
	line, column int
}

// readings returns what an expression reads, in the order in which it stands.
func readings(a *cel.Ast) []reading {
	var found []reading
	native := a.NativeRep()
	whole := ast.NavigateAST(native)
	own := ownVariables(whole)
	for _, e := range ast.MatchDescendants(whole, ast.AllMatcher()) {
		path := pathOf(e)
		if parent, ok := e.Parent(); path == nil || ok && pathOf(parent) != nil || slices.Contains(own, path[0]) {
			continue // nothing, a part of a longer one, or made by the expression
		}
		at := native.SourceInfo().GetStartLocation(root(e).ID())
		found = append(found, reading{path, max(at.Line(), 1), max(at.Column(), 0) + 1})
	}
	return found
}

func hasLoops(a *cel.Ast) bool {
	return len(ast.MatchDescendants(ast.NavigateAST(a.NativeRep()), ast.KindMatcher(ast.ComprehensionKind))) > 0
}

// ownVariables returns the names that loops declare.
func ownVariables(whole ast.NavigableExpr) []string {
	var names []string
	for _, e := range ast.MatchDescendants(whole, ast.KindMatcher(ast.ComprehensionKind)) {
		loop := e.AsComprehension()
		names = append(names, loop.IterVar(), loop.IterVar2(), loop.AccuVar())
	}
	return names
}

// pathOf returns a chain of selections, nil if e is something else.
func pathOf(e ast.Expr) []string {
	switch e.Kind() {
	case ast.IdentKind:
		return []string{e.AsIdent()}
	case ast.SelectKind:
		return longer(e.AsSelect().Operand(), e.AsSelect().FieldName())
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != operators.Index || call.Args()[1].Kind() != ast.LiteralKind {
			return nil
		}
		if name, ok := call.Args()[1].AsLiteral().(types.String); ok {
			return longer(call.Args()[0], string(name))
		}
	}
	return nil
}

func longer(operand ast.Expr, name string) []string {
	if path := pathOf(operand); path != nil {
		return append(path, name)
	}
	return nil
}

// root returns the variable that a chain of selections begins with.
func root(e ast.Expr) ast.Expr {
	switch e.Kind() {
	case ast.SelectKind:
		return root(e.AsSelect().Operand())
	case ast.CallKind:
		return root(e.AsCall().Args()[0])
	}
	return e
}

// Check returns what is wrong with a rule: beside what [Compile] finds, that it
// reads what is never there where it stands, so that it would deny for ever. It
// fits [mesh.Options.CheckExpression].
func Check(e mesh.Expression) []mesh.ExpressionFault {
	return check(e, Compile)
}

// CheckBinding does so for [CompileBinding]; it fits [mesh.Options.CheckBinding].
func CheckBinding(e mesh.Expression) []mesh.ExpressionFault {
	return check(e, CompileBinding)
}

func check(e mesh.Expression, compile func(string) (*Program, []mesh.ExpressionFault)) []mesh.ExpressionFault {
	program, faults := compile(e.Source)
	if program == nil {
		return faults
	}
	for _, r := range program.readings {
		if message := neverThere(e, r.path); message != "" {
			faults = append(faults, mesh.ExpressionFault{Line: r.line, Column: r.column, Message: message})
		}
	}
	return faults
}

// neverThere says why nothing is at path where e stands, or is empty.
func neverThere(e mesh.Expression, path []string) string {
	variable, part := path[0], ""
	if len(path) > 1 {
		part = path[1]
	}
	switch {
	case variable == "passport" && e.AtGateway:
		return "there is no Passport yet at a gateway, which makes it: decide by it in services"
	case variable == "caller" && e.AtGateway:
		return "there is no caller at a gateway, only in services: a client that has a certificate is user.id"
	case variable == "client" && !e.AtGateway && (part == "owner" || part == "plan"):
		return fmt.Sprintf("client.%s is known at gateways alone: decide by it there", part)
	case variable == "request" && part == "body" && !e.HasBody:
		return "there is no body: write up to which size it is shown, such as body: 64KiB, in the route"
	case variable == "data" && len(e.Data) == 0:
		return "no data set is listed: write data: [NAME] in the document"
	case variable == "data" && part != "" && !slices.Contains(e.Data, part):
		return fmt.Sprintf("data set %q is not listed: add it to data in the document", part)
	case variable == "params" && part != "" && !slices.Contains(e.Params, part):
		return fmt.Sprintf("{%s} is not in match.path: write it there", part)
	}
	return ""
}
