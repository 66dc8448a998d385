package policy

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
)

// Value is something that a rule read, for people.
type Value struct {
	// Path as the rule has it: "user.groups".
	Path string
	// Text is the value, cut if it is long; "(missing)" if there is none, and
	// "(not kept)" for what may hold secrets.
	Text string
}

const (
	textMissing = "(missing)"
	textNotKept = "(not kept)"
	// maxText bounds the text of a value, in bytes, and maxPaths the values.
	maxText  = 256
	maxPaths = 16
)

// paths returns what an expression reads, in the order in which it stands.
func paths(a *cel.Ast) [][]string {
	var found [][]string
	root := ast.NavigateAST(a.NativeRep())
	for _, e := range ast.MatchDescendants(root, ast.AllMatcher()) {
		if parent, ok := e.Parent(); ok && parent.Kind() == ast.SelectKind {
			continue // a part of a longer one
		}
		path := pathOf(e)
		known := path != nil && slices.Contains(variables, path[0])
		if known && len(found) < maxPaths && !slices.ContainsFunc(found, func(p []string) bool { return slices.Equal(p, path) }) {
			found = append(found, path)
		}
	}
	return found
}

// variables are those whose values are told.
var variables = []string{"user", "client", "caller", "tenant", "request", "params", "passport", "now"}

// pathOf returns a chain of selections, nil if e is something else.
func pathOf(e ast.NavigableExpr) []string {
	switch e.Kind() {
	case ast.IdentKind:
		return []string{e.AsIdent()}
	case ast.SelectKind:
		s := e.AsSelect()
		operand, ok := s.Operand().(ast.NavigableExpr)
		if !ok {
			return nil
		}
		if path := pathOf(operand); path != nil {
			return append(path, s.FieldName())
		}
	}
	return nil
}

// Values returns what the rule reads of in.
func (p *Program) Values(in *Input) []Value {
	values := make([]Value, len(p.paths))
	for i, path := range p.paths {
		values[i] = Value{strings.Join(path, "."), valueText(in, path)}
	}
	return values
}

// secrets are parts of requests that may hold secrets.
var secrets = []string{"headers", "query", "target", "body"}

func valueText(in *Input, path []string) string {
	if path[0] == "request" && (len(path) == 1 || slices.Contains(secrets, path[1])) {
		return textNotKept
	}
	value, ok := in.ResolveName(path[0])
	for _, name := range path[1:] {
		if !ok {
			break
		}
		value, ok = member(value, name)
	}
	if !ok {
		return textMissing
	}
	text := fmt.Sprintf("%q", value)
	if t, isTime := value.(fmt.Stringer); isTime {
		text = t.String()
	}
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// member returns a field of one of our types, or of a map.
func member(value any, name string) (any, bool) {
	if m, ok := value.(map[string]string); ok {
		v, ok := m[name]
		return v, ok
	}
	var object string
	switch value.(type) {
	case *User:
		object = userType.TypeName()
	case *Client:
		object = clientType.TypeName()
	case *Caller:
		object = callerType.TypeName()
	case *Request:
		object = requestType.TypeName()
	case *Passport:
		object = passportType.TypeName()
	}
	f := fields[object][name]
	if f == nil {
		return nil, false
	}
	v, err := f.GetFrom(value)
	return v, err == nil
}
