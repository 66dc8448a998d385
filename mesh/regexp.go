package mesh

import (
	"fmt"
	"regexp"
	"strings"
)

// Regexp returns the RE2 expression that matches, in full, the same paths as
// [Pattern.Match]. The zero value's matches nothing but the empty path, which
// no request has.
func (p Pattern) Regexp() string {
	expression := segmentsRegexp(p.WithoutRest().text, "[^/]+")
	switch {
	case p.text == rest:
		return "/.*"
	case p.HasRest():
		return expression + "(?:/.*)?"
	}
	return expression
}

func segmentsRegexp(text, variableExpression string) string {
	var b strings.Builder
	for segment := ""; text != ""; {
		segment, text = cutSegment(text)
		if _, ok := variable(segment); ok {
			b.WriteString("/" + variableExpression)
		} else {
			b.WriteString(literalRegexp(segment))
		}
	}
	return b.String()
}

// literalRegexp matches literal in all spellings that are canonical.
func literalRegexp(literal string) string {
	var b strings.Builder
	for _, c := range []byte(literal) {
		if strings.IndexByte(reservedCharacters, c) >= 0 {
			fmt.Fprintf(&b, "(?:%s|%%%02X)", regexp.QuoteMeta(string(c)), c)
		} else {
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return b.String()
}
