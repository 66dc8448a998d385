package jose

import (
	"encoding/json"
	"unicode/utf8"
)

// AppendString appends s as a JSON string, and as fast as usual text allows. S
// must be UTF-8.
func AppendString(b []byte, s string) []byte {
	if !isPlain(s) {
		quoted, _ := json.Marshal(s) // strings are never an error
		return append(b, quoted...)
	}
	return append(append(append(b, '"'), s...), '"')
}

// isPlain reports whether s stands for itself between quotes.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
