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
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, fmt.Errorf("%w: not JSON in UTF-8", ErrMalformed)
	}
	p := parser{rest: string(data), maxDepth: maxDepth}
	if p.next() != '{' {
		return nil, fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	return p.object(0)
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
	f, err := number.Float64()
	if err != nil || f < 0 || f > maxDate {
		return time.Time{}, true, fmt.Errorf("%w: %q is not a date", ErrMalformed, name)
	}
	seconds, fraction := math.Modf(f)
	return time.Unix(int64(seconds), int64(fraction*1e9)), true, nil
}

// maxIdentifier bounds what names a user, group, tenant or client.
const maxIdentifier = 1024

// IsIdentifier reports whether s may name somebody: printable text that looks
// like nothing else, without space around it. Strings that differ in bytes
// name different ones; nothing is normalized.
func IsIdentifier(s string) bool {
	return s != "" && len(s) <= maxIdentifier && utf8.ValidString(s) && strings.TrimSpace(s) == s &&
		strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
