package mesh

import (
	"slices"
	"strconv"
	"strings"
)

// Rewrite returns the RE2 expression and substitution (`\1` is the first group)
// that turn every path that p matches into what to makes of it: variables of
// the same name take the same value, and the rest is the same. Both end in
// "/**", and to has no variable that p lacks.
func (p Pattern) Rewrite(to Pattern) (expression, substitution string) {
	names := p.Variables()
	prefix := segmentsRegexp(p.WithoutRest().text, "([^/]+)")
	group := `\` + strconv.Itoa(len(names)+1)
	substitution = to.WithoutRest().substitution(names)
	switch {
	case p.text == rest:
		return "^/(.*)$", substitution + "/" + group
	case to.text == rest:
		// Even where nothing follows, the new path begins with a slash.
		return "^" + prefix + "(?:/(.*))?$", "/" + group
	}
	return "^" + prefix + "(/.*)?$", substitution + group
}

// substitution returns p with the variables replaced by references to groups,
// which are numbered from 1.
func (p Pattern) substitution(groups []string) string {
	var b strings.Builder
	for segment, text := "", p.text; text != ""; {
		segment, text = cutSegment(text)
		if name, ok := variable(segment); ok {
			segment = `/\` + strconv.Itoa(slices.Index(groups, name)+1)
		}
		b.WriteString(segment)
	}
	return b.String()
}

// Unrewrite returns the patterns of the paths that p matches and that are
// matched by q once rewritten from p to to. It is how a gateway tells which
// route of a service a path will meet.
func (p Pattern) Unrewrite(to, q Pattern) []Pattern {
	both, ok := Intersect(to, q)
	if !ok {
		return nil
	}
	values := map[string]string{}
	after := both.text
	for segment, text := "", to.WithoutRest().text; text != ""; {
		var got string
		segment, text = cutSegment(text)
		got, after = cutSegment(after)
		name, isVariable := variable(segment)
		if _, open := variable(got); isVariable && !open {
			values[name] = got[1:]
		}
	}
	prefix := p.WithoutRest().Substitute(values).text
	var patterns []Pattern
	if text := prefix + after; text != "" {
		patterns = append(patterns, Pattern{distinctVariables(text)})
	}
	if to.text == rest && after == "/" && prefix != "" {
		patterns = append(patterns, Pattern{prefix})
	}
	return patterns
}
