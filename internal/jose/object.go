package jose

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Object is a JSON object whose members each stood once in its text. Values
// are string, [json.Number], bool, nil, []any and Object. Names are compared
// byte by byte.
type Object map[string]any

// maxDepth is far beyond what any token or key nests.
const maxDepth = 32

// ParseObject reads one JSON object and refuses what parsers disagree on:
// duplicate members, text that is not Unicode, anything after the object.
func ParseObject(data []byte) (Object, error) {
	p, err := NewParser(data)
	if err != nil {
		return nil, err
	}
	o, err := p.object()
	if err == nil {
		err = p.End()
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// String returns a member that must be a string if it is there.
func (o Object) String(name string) (s string, present bool, err error) {
	v, present := o[name]
	if !present {
		return "", false, nil
	}
	s, ok := v.(string)
	if !ok {
		return "", true, fmt.Errorf("%w: %q is not a string", ErrMalformed, name)
	}
	return s, true, nil
}

// Strings returns a member that must be an array of strings if it is there.
func (o Object) Strings(name string) (list []string, present bool, err error) {
	v, present := o[name]
	if !present {
		return nil, false, nil
	}
	array, ok := v.([]any)
	list = make([]string, len(array))
	for i := 0; ok && i < len(array); i++ {
		list[i], ok = array[i].(string)
	}
	if !ok {
		return nil, true, fmt.Errorf("%w: %q is not an array of strings", ErrMalformed, name)
	}
	return list, true, nil
}

// maxDate is the last second of the year 9999.
const maxDate = 253402300799

// Time returns a member that must be a NumericDate (RFC 7519 section 2), from
// 1970 to 9999, if it is there.
func (o Object) Time(name string) (t time.Time, present bool, err error) {
	v, present := o[name]
	if !present {
		return time.Time{}, false, nil
	}
	number, _ := v.(json.Number)
	if t, err = date(number); err != nil {
		return t, true, fmt.Errorf("%q: %w", name, err)
	}
	return t, true, nil
}

func date(n json.Number) (time.Time, error) {
	f, err := n.Float64()
	if err != nil || f < 0 || f > maxDate {
		return time.Time{}, fmt.Errorf("%w: not a date", ErrMalformed)
	}
	seconds, fraction := math.Modf(f)
	return time.Unix(int64(seconds), int64(fraction*1e9)), nil
}

// maxIdentifier bounds what names a user, group, tenant or client.
const maxIdentifier = 1024

// IsIdentifier reports whether s may name somebody: printable text that looks
// like nothing else, without space around it. Strings that differ in bytes
// name different ones; nothing is normalized.
func IsIdentifier(s string) bool {
	if s == "" || len(s) > maxIdentifier || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return isIdentifier(s)
		}
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// isIdentifier looks at text that is not ASCII.
func isIdentifier(s string) bool {
	return utf8.ValidString(s) && strings.TrimSpace(s) == s &&
		strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
