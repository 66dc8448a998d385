package opaenvoy

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/chancery-mesh/chancery/extauthz/policy"
)

// told are the parts of an input whose values may be told. Everything else, such
// as headers, queries and bodies, may hold secrets.
var told = []string{
	"input.identity.user", "input.identity.client", "input.identity.caller", "input.identity.tenant",
	"input.identity.params", "input.identity.passport", "input.identity.ip",
	"input.parsed_path", "input.source_principal", "input.attributes.source.principal",
	"input.attributes.source.address.socketAddress.address",
	"input.attributes.request.http.method", "input.attributes.request.http.host",
}

// Values returns what reads has of an input, for people.
func Values(input ast.Object, reads []ast.Ref) []policy.Value {
	var values []policy.Value
	for _, ref := range reads[:min(len(reads), policy.MaxValues)] {
		path := pathOf(ref)
		values = append(values, policy.Value{Path: path, Text: valueText(input, ref, path)})
	}
	return values
}

// pathOf writes a reference as conditions do: with dots alone.
func pathOf(ref ast.Ref) string {
	var names []string
	for _, term := range ref {
		switch v := term.Value.(type) {
		case ast.Var:
			names = append(names, string(v))
		case ast.String:
			names = append(names, string(v))
		default:
			names = append(names, v.String())
		}
	}
	return strings.Join(names, ".")
}

func valueText(input ast.Object, ref ast.Ref, path string) string {
	if !isTold(path) {
		return policy.TextNotKept
	}
	value, err := input.Find(ref[1:])
	if err != nil {
		return policy.TextMissing
	}
	return policy.CutText(value.String())
}

func isTold(path string) bool {
	for _, part := range told {
		if rest, ok := strings.CutPrefix(path, part); ok && (rest == "" || rest[0] == '.') {
			return true
		}
	}
	return false
}
