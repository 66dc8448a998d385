package rego

import (
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/chancery-mesh/chancery/mesh"
)

// refused are the builtin functions that no module may call, and why.
var refused = map[string]string{
	"http.send":             "it calls others while the request waits",
	"net.lookup_ip_addr":    "it asks DNS while the request waits",
	"opa.runtime":           "it tells the environment of the process, with the secrets in it",
	"json.match_schema":     "a $ref in a schema reads files and calls others",
	"json.verify_schema":    "a $ref in a schema reads files and calls others",
	"rego.parse_module":     "modules are parsed ahead of requests",
	"bits.lsh":              "a large shift takes all memory",
	"graph.reachable_paths": "it cannot be interrupted",
}

// capabilities are OPA's without what is refused: to the compiler there are no
// such functions, by whatever way they are called.
var capabilities = sync.OnceValue(func() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		_, no := refused[b.Name]
		return no
	})
	c.AllowNet = []string{} // nil would be any host
	return c
})

// refusedCalls says where a module calls what is refused, and why it must not.
// The compiler would say that there is no such function.
func refusedCalls(module *ast.Module) (errs ast.Errors) {
	check := func(function *ast.Term, at *ast.Location) {
		ref, ok := function.Value.(ast.Ref)
		if !ok {
			return
		}
		if why, no := refused[ref.String()]; no {
			errs = append(errs, ast.NewError(ast.TypeErr, at, "%s may not be called: %s", ref, why))
		}
	}
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Expr:
			if terms, ok := x.Terms.([]*ast.Term); ok {
				check(terms[0], x.Location)
			}
		case *ast.Term:
			if call, ok := x.Value.(ast.Call); ok {
				check(call[0], x.Location)
			}
		case *ast.With: // a function may stand in for another
			check(x.Target, x.Location)
			check(x.Value, x.Location)
		}
		return false
	}).Walk(module)
	return errs
}

// Faults gives OPA's errors the form of ours.
func Faults(errs ast.Errors) mesh.Faults {
	errs.Sort()
	var list mesh.Faults
	for _, e := range errs {
		f := mesh.Fault{Message: e.Message}
		if e.Details != nil {
			f.Message = strings.Join(append([]string{e.Message}, e.Details.Lines()...), "\n\t")
		}
		if e.Location != nil {
			f.Position = mesh.Position{File: e.Location.File, Line: e.Location.Row, Column: e.Location.Col}
		}
		list = append(list, f)
	}
	return list
}
