package mesh

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Bounds on patterns. RE2 substitutions know nine groups: the variables and
// the rest.
const (
	maxPatternLength    = 512
	maxPatternVariables = 8
)

// rest ends a pattern that matches everything below, too.
const rest = "/**"

// Pattern matches paths, segment by segment:
//
//	/orders            that path
//	/orders/{id}/lines {id} is any one segment, which is not empty
//	/orders/**         /orders and everything below
//
// The zero value matches nothing. Patterns are comparable.
type Pattern struct {
	// Valid by construction. It is walked rather than compiled: that is as
	// fast, and keeps patterns comparable.
	text string
}

var variableName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,62}$`)

// ParsePattern reads a pattern. What is not a variable or the rest must be
// canonical (see [CanonicalPath]), with nothing encoded that may be plain.
func ParsePattern(s string) (Pattern, error) {
	switch {
	case !strings.HasPrefix(s, "/"):
		return Pattern{}, errors.New(`must start with "/"`)
	case len(s) > maxPatternLength:
		return Pattern{}, fmt.Errorf("must be at most %d bytes long", maxPatternLength)
	}
	p := Pattern{text: s}
	for segment, text := "", p.WithoutRest().text; text != ""; {
		segment, text = cutSegment(text)
		if err := checkSegment(segment[1:], text == "" && !p.HasRest()); err != nil {
			return Pattern{}, err
		}
	}
	names := p.Variables()
	if len(names) > maxPatternVariables {
		return Pattern{}, fmt.Errorf("must have at most %d variables", maxPatternVariables)
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return Pattern{}, fmt.Errorf("variable {%s} stands twice in it: rename one", name)
		}
	}
	return p, nil
}

func checkSegment(s string, last bool) error {
	if strings.ContainsAny(s, "{}") {
		name, ok := variable("/" + s)
		if !ok || !variableName.MatchString(name) {
			return fmt.Errorf("segment %q must be wholly a variable, such as {id}", s)
		}
		return nil
	}
	switch i := strings.IndexAny(s, "*?#"); {
	case i >= 0 && s[i] == '*':
		return fmt.Errorf(`segment %q has a "*": write {name} for any one segment, or end in /** for all below`, s)
	case i >= 0:
		return fmt.Errorf("segment %q has a %q: only the path is matched, without query", s, s[i])
	case s == "" && last:
		return nil
	case s == "":
		return errors.New(`must not have an empty segment ("//")`)
	case s == "." || s == "..":
		return errors.New("must not have a dot segment")
	case !isCanonicalSegment(s) || NormalPath(s) != s:
		return fmt.Errorf("segment %q is not in its canonical form: %s", s, canonicalHint(s))
	}
	return nil
}

// canonicalHint says how to write segment s.
func canonicalHint(s string) string {
	raw, err := url.PathUnescape(s)
	if err == nil {
		var b strings.Builder
		for _, c := range []byte(raw) {
			if isPlain[c] {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
		if isCanonicalSegment(b.String()) {
			return "write " + b.String()
		}
	}
	return "no request with it is let in"
}

// MustPattern is like [ParsePattern] but panics on an error.
func MustPattern(s string) Pattern {
	p, err := ParsePattern(s)
	if err != nil {
		panic(fmt.Sprintf("pattern %q: %v", s, err))
	}
	return p
}

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.text }

// IsZero reports whether p is the zero value.
func (p Pattern) IsZero() bool { return p.text == "" }

// Equal reports whether p and q are written alike.
func (p Pattern) Equal(q Pattern) bool { return p == q }

// HasRest reports whether p ends in "/**".
func (p Pattern) HasRest() bool { return strings.HasSuffix(p.text, rest) }

// WithoutRest returns p without a "/**" at its end; the zero value for "/**".
func (p Pattern) WithoutRest() Pattern { return Pattern{strings.TrimSuffix(p.text, rest)} }

// Variables returns the names of the variables, in order.
func (p Pattern) Variables() []string {
	var names []string
	for segment, text := "", p.text; text != ""; {
		segment, text = cutSegment(text)
		if name, ok := variable(segment); ok {
			names = append(names, name)
		}
	}
	return names
}

// Literal returns the one path that p matches, if it is only one.
func (p Pattern) Literal() (string, bool) {
	if p.IsZero() || p.HasRest() || strings.ContainsAny(p.text, "{"+reservedCharacters) {
		return "", false
	}
	return p.text, true
}

// Match reports whether p matches path, which must be canonical and come
// without its query, and if so the decoded values of its variables, nil if it
// has none.
func (p Pattern) Match(path string) (params map[string]string, ok bool) {
	if p.IsZero() || !strings.HasPrefix(path, "/") {
		return nil, false
	}
	return match(p.text, path)
}

// match binds on the way back, when all of pattern is known to match; it
// recurses once for each segment of pattern.
func match(pattern, path string) (map[string]string, bool) {
	if pattern == rest {
		return nil, true
	}
	if pattern == "" || path == "" {
		return nil, pattern == path
	}
	want, pattern := cutSegment(pattern)
	got, path := cutSegment(path)
	name, isVariable := variable(want)
	if !isVariable {
		if !sameSegment(want, got) {
			return nil, false
		}
		return match(pattern, path)
	}
	value, err := url.PathUnescape(got[1:])
	if value == "" || err != nil {
		return nil, false
	}
	params, ok := match(pattern, path)
	if !ok {
		return nil, false
	}
	if params == nil {
		params = make(map[string]string)
	}
	params[name] = value
	return params, true
}

// Substitute returns p with the variables in values replaced. It panics if a
// value cannot stand as a segment: let only validated names come here.
func (p Pattern) Substitute(values map[string]string) Pattern {
	if p.IsZero() {
		return p
	}
	var b strings.Builder
	for segment, text := "", p.text; text != ""; {
		segment, text = cutSegment(text)
		if name, ok := variable(segment); ok {
			if value, ok := values[name]; ok {
				segment = "/" + value
			}
		}
		b.WriteString(segment)
	}
	return MustPattern(b.String())
}

// Intersect returns the pattern of the paths that both a and b match, if there
// are any. Its variables bear the names that they have in a, else in b.
func Intersect(a, b Pattern) (Pattern, bool) {
	if a.IsZero() || b.IsZero() {
		return Pattern{}, false
	}
	text, ok := intersect(a.text, b.text)
	if !ok {
		return Pattern{}, false
	}
	return Pattern{distinctVariables(text)}, true
}

func intersect(a, b string) (string, bool) {
	switch {
	case a == rest:
		return b, true
	case b == rest:
		return a, true
	case a == "" || b == "":
		return "", a == b
	}
	x, a := cutSegment(a)
	y, b := cutSegment(b)
	_, xVariable := variable(x)
	_, yVariable := variable(y)
	switch {
	case xVariable && y == "/", yVariable && x == "/":
		return "", false
	case xVariable:
		x, y = y, x
		if yVariable {
			x = y
		}
	case !yVariable && x != y:
		return "", false
	}
	text, ok := intersect(a, b)
	return x + text, ok
}

// distinctVariables appends "_" to names that stand twice.
func distinctVariables(text string) string {
	var b strings.Builder
	seen := map[string]bool{}
	for segment := ""; text != ""; {
		segment, text = cutSegment(text)
		if name, ok := variable(segment); ok {
			for seen[name] {
				name += "_"
			}
			seen[name] = true
			segment = "/{" + name + "}"
		}
		b.WriteString(segment)
	}
	return b.String()
}

// Covers reports whether p matches every path that q matches.
func (p Pattern) Covers(q Pattern) bool {
	both, ok := Intersect(p, q)
	return ok && both.Regexp() == q.Regexp()
}

// cutSegment cuts the first segment, with the "/" before it, from s.
func cutSegment(s string) (segment, after string) {
	if i := strings.IndexByte(s[1:], '/'); i >= 0 {
		return s[:i+1], s[i+1:]
	}
	return s, ""
}

// variable returns x of the segment "/{x}".
func variable(segment string) (name string, ok bool) {
	if !strings.HasPrefix(segment, "/{") || !strings.HasSuffix(segment, "}") {
		return "", false
	}
	return segment[2 : len(segment)-1], true
}

// sameSegment reports whether got, of a path, is what literal, of a pattern,
// says: clients may encode more than they must.
func sameSegment(literal, got string) bool {
	return literal == got || strings.IndexByte(got, '%') >= 0 && NormalPath(got) == literal
}
