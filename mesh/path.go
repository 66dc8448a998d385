package mesh

import (
	"strings"
	"unicode/utf8"
)

// CanonicalPath is an RE2 expression for the paths (without query) that mean
// the same to everybody. Such a path decodes in one way, and all that decode to
// the same text are one to [Pattern] and have one [NormalPath]: what is routed,
// what policy judges and what the service reads cannot differ. It has none of
//
//   - empty segments ("//") and dot segments, plain or encoded;
//   - ";", "\" and whatever else RFC 3986 section 3.3 keeps out of a segment;
//   - encoded letters, digits, "-", ".", "_" and "~", which need no encoding;
//   - an encoded "/", "\", ";", "?", "#", "%" or control character, on which
//     servers disagree;
//   - lower-case hexadecimal digits, and bytes that are not UTF-8.
//
// A character of "!$&'()*+,:=@" may come plain or encoded, since clients do
// both. That is the only choice there is.
//
// It is one group: something may be appended to it.
const CanonicalPath = `(?:/|(?:/` + pathSegment + `)+/?)`

// A segment is neither "." nor "..".
const (
	pathSegment   = `(?:\.?\.?` + pathCharacter + `|\.\.\.)(?:\.|` + pathCharacter + `)*`
	pathCharacter = `(?:[A-Za-z0-9_~!$&'()*+,:=@-]|%(?:` + encodedASCII + `|` + encodedRune + `))`
	encodedASCII  = `2[0-246-9A-C]|3[ACDE]|[46]0|5[BDE]|7[BCD]`
	// The well-formed sequences of the Unicode Standard, table 3-7, each
	// without its first "%".
	encodedRune = `(?:C[2-9A-F]|D[0-9A-F])` + encodedTail +
		`|(?:E0%[AB]` + hexDigit + `|ED%[89]` + hexDigit + `|E[1-9A-CEF]` + encodedTail + `)` + encodedTail +
		`|(?:F0%[9AB]` + hexDigit + `|F4%8` + hexDigit + `|F[1-3]` + encodedTail + `)` + encodedTail + encodedTail
	encodedTail = `%[89AB]` + hexDigit
	hexDigit    = `[0-9A-F]`
)

const (
	unreservedCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	// reservedCharacters may stand in a segment plain or encoded.
	reservedCharacters = "!$&'()*+,:=@"
	// structuralCharacters may not come encoded.
	structuralCharacters = `/\;?#%`
)

var isPlain = characterSet(unreservedCharacters + reservedCharacters)

func characterSet(characters string) (set [256]bool) {
	for _, c := range []byte(characters) {
		set[c] = true
	}
	return set
}

// IsCanonicalPath reports whether path matches [CanonicalPath].
func IsCanonicalPath(path string) bool {
	segments, ok := strings.CutPrefix(path, "/")
	for ok && segments != "" {
		var segment string
		segment, segments, _ = strings.Cut(segments, "/")
		ok = segment != "" && segment != "." && segment != ".." && isCanonicalSegment(segment)
	}
	return ok
}

// NormalPath returns the one spelling of a canonical path, or of a segment: what
// may come plain or encoded comes plain, as in patterns.
func NormalPath(path string) string {
	if strings.IndexByte(path, '%') < 0 {
		return path
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if c, ok := unescape(path[i:]); ok && strings.IndexByte(reservedCharacters, c) >= 0 {
			b.WriteByte(c)
			i += 2
			continue
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

func isCanonicalSegment(s string) bool {
	for s != "" {
		n := 1
		if s[0] == '%' {
			n = canonicalEscapes(s)
		} else if !isPlain[s[0]] {
			n = 0
		}
		if n == 0 {
			return false
		}
		s = s[n:]
	}
	return true
}

// canonicalEscapes returns the length of the escapes of the one character that
// s begins with, 0 if they are not canonical.
func canonicalEscapes(s string) int {
	var encoded []byte
	for !utf8.FullRune(encoded) {
		c, ok := unescape(s[min(3*len(encoded), len(s)):])
		if !ok {
			return 0
		}
		encoded = append(encoded, c)
	}
	r, size := utf8.DecodeRune(encoded)
	if r == utf8.RuneError && size == 1 || r < utf8.RuneSelf && !mayEscape(byte(r)) {
		return 0
	}
	return 3 * size
}

// mayEscape reports whether c, an ASCII character, may come encoded.
func mayEscape(c byte) bool {
	return c >= ' ' && c != 0x7F &&
		strings.IndexByte(unreservedCharacters, c) < 0 && strings.IndexByte(structuralCharacters, c) < 0
}

// unescape decodes the %XX that s begins with, in upper case only.
func unescape(s string) (c byte, ok bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	const digits = "0123456789ABCDEF"
	high, low := strings.IndexByte(digits, s[1]), strings.IndexByte(digits, s[2])
	return byte(high<<4 | low), high >= 0 && low >= 0
}
