package policy

import (
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
)

// sizes tells the estimator how large the parts of a request get. These are
// the largest that are usual; the limit at run time holds for the rest.
type sizes struct{}

const (
	usualElements   = 500
	usualIdentifier = 256
	usualText       = 8192
	maxVariables    = 8
)

// shortParts of requests are no longer than names.
var shortParts = []string{"ip", "method", "host"}

func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	path := n.Path()
	if len(path) == 0 {
		return nil
	}
	size := uint64(usualIdentifier)
	switch n.Type().Kind() {
	case types.ListKind, types.MapKind:
		size = usualElements
		if path[0] == "params" {
			size = maxVariables
		}
	default:
		if path[0] == "request" && (len(path) != 2 || !slices.Contains(shortParts, path[1])) {
			size = usualText
		}
	}
	return &cost.SizeEstimate{Min: 0, Max: size}
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// literalPatterns refuses regular expressions that are computed: they would be
// compiled for each request, and could be of the client's making.
type literalPatterns struct{}

func (literalPatterns) Name() string { return "chancery.literalPatterns" }

func (literalPatterns) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	root := ast.NavigateAST(a)
	for _, call := range ast.MatchDescendants(root, ast.FunctionMatcher(overloads.Matches)) {
		args := call.AsCall().Args()
		if pattern := args[len(args)-1]; pattern.Kind() != ast.LiteralKind {
			issues.ReportErrorAtID(pattern.ID(), "the pattern of matches must be written out")
		}
	}
}
