package extauthz_test

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/audit"
)

// Every reason has a paragraph that says what to do, and none is stale.
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, match := range regexp.MustCompile(`(?m)^### ([a-z_]+)\n\n\S`).FindAllSubmatch(text, -1) {
		documented = append(documented, string(match[1]))
	}
	known := []string{audit.ReasonUnavailable}
	for _, dir := range []string{".", "credential", "opaenvoy"} {
		known = append(known, reasonsIn(t, dir)...)
	}
	for _, reason := range known {
		if !slices.Contains(documented, reason) {
			t.Errorf("docs/reasons.md has no paragraph on %s", reason)
		}
	}
	for i, reason := range documented {
		if !slices.Contains(known, reason) || slices.Contains(documented[:i], reason) {
			t.Errorf("docs/reasons.md speaks of %s, which is no reason, or twice", reason)
		}
	}
	if len(known) < 80 {
		t.Errorf("only %d reasons were found: %v", len(known), known)
	}
}

// reasonsIn returns the reasons that the code of a package can give: those of its
// verdicts, what it refuses credentials and Passports for, and its constants.
func reasonsIn(t *testing.T, dir string) (reasons []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	add := func(e ast.Expr) {
		if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == gotoken.STRING {
			reason, err := strconv.Unquote(literal.Value)
			if err == nil && !slices.Contains(reasons, reason) {
				reasons = append(reasons, reason)
			}
		}
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if nameOf(n.Type) == "verdict" && len(n.Elts) > 0 {
					add(n.Elts[0])
				}
			case *ast.CallExpr:
				if slices.Contains([]string{"unauthenticated", "refusePassport"}, nameOf(n.Fun)) {
					add(n.Args[0])
				}
			case *ast.AssignStmt:
				if nameOf(n.Lhs[0]) == "reason" {
					add(n.Rhs[0])
				}
			case *ast.ValueSpec:
				if nameOf(n.Type) == "Reason" || strings.HasPrefix(n.Names[0].Name, "reason") {
					add(n.Values[0])
				}
				if n.Names[0].Name == "passportReasons" {
					for _, entry := range n.Values[0].(*ast.CompositeLit).Elts {
						add(entry.(*ast.CompositeLit).Elts[1])
					}
				}
			case *ast.FuncDecl:
				if n.Name.Name == "passportReason" {
					add(n.Body.List[len(n.Body.List)-1].(*ast.ReturnStmt).Results[0])
				}
			}
			return true
		})
	}
	return reasons
}

// nameOf returns the last word of an expression.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}
