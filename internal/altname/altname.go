// Package altname tells of which type a subject alternative name is that documents
// have as text. Envoy's configuration, the decisions about client certificates and
// the tests of documents go by it, so that one name is the same to all of them.
package altname

import (
	"regexp"
	"strings"
)

// Type is the type of a name: its ASN.1 tag (RFC 5280 section 4.2.1.6).
type Type int

// The types that documents can name.
const (
	Email Type = 1
	DNS   Type = 2
	URI   Type = 6
)

// scheme begins a URI, of any kind: "spiffe://partner.example/till",
// "urn:partner:till".
var scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)

// TypeOf returns the type of a name. None is of two.
func TypeOf(name string) Type {
	switch {
	case scheme.MatchString(name):
		return URI
	case strings.Contains(name, "@"):
		return Email
	}
	return DNS
}
