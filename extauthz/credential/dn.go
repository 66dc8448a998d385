package credential

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// attributeTypes are the names that RFC 4514 section 3 has, and two that are
// usual.
var attributeTypes = map[string]asn1.ObjectIdentifier{
	"CN":           {2, 5, 4, 3},
	"SERIALNUMBER": {2, 5, 4, 5},
	"C":            {2, 5, 4, 6},
	"L":            {2, 5, 4, 7},
	"ST":           {2, 5, 4, 8},
	"STREET":       {2, 5, 4, 9},
	"O":            {2, 5, 4, 10},
	"OU":           {2, 5, 4, 11},
	"DC":           {0, 9, 2342, 19200300, 100, 1, 25},
	"UID":          {0, 9, 2342, 19200300, 100, 1, 1},
	"EMAILADDRESS": {1, 2, 840, 113549, 1, 9, 1},
}

// canonicalName writes a distinguished name in a form that no other has: one
// that differs in a type, a value, or the order of RDNs differs here. It has none
// if it is empty or has a value that is no text.
func canonicalName(name pkix.RDNSequence) (string, bool) {
	var b strings.Builder
	for _, rdn := range name {
		attributes := make([]string, len(rdn))
		for i, a := range rdn {
			value, ok := a.Value.(string)
			if !ok || !utf8.ValidString(value) {
				return "", false
			}
			attributes[i] = a.Type.String() + "=" + strconv.Quote(value)
		}
		slices.Sort(attributes) // an RDN is a set
		b.WriteString(strings.Join(attributes, "+") + ",")
	}
	return b.String(), len(name) > 0
}

// parseName reads a distinguished name in the form of RFC 4514. Spaces around
// commas and plus signs do not count.
func parseName(text string) (name pkix.RDNSequence, err error) {
	var rdn pkix.RelativeDistinguishedNameSET
	for rest, end := text, byte('+'); end != 0; {
		var attribute string
		attribute, rest, end = cutAttribute(rest)
		a, err := parseAttribute(attribute)
		if err != nil {
			return nil, err
		}
		if rdn = append(rdn, a); end != '+' {
			name, rdn = append(name, rdn), nil
		}
	}
	slices.Reverse(name) // the text begins with the last
	return name, nil
}

// cutAttribute cuts text after its first attribute, at a comma or plus sign that
// no backslash escapes.
func cutAttribute(text string) (attribute, rest string, end byte) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case ',', '+':
			return text[:i], text[i+1:], text[i]
		}
	}
	return text, "", 0
}

func parseAttribute(text string) (a pkix.AttributeTypeAndValue, err error) {
	typ, escaped, ok := strings.Cut(text, "=")
	if !ok {
		return a, fmt.Errorf("has no = in %q", text)
	}
	if a.Type, err = parseAttributeType(strings.TrimSpace(typ)); err != nil {
		return a, err
	}
	value, err := unescape(escaped)
	a.Value = value
	return a, err
}

func parseAttributeType(s string) (asn1.ObjectIdentifier, error) {
	if oid, ok := attributeTypes[strings.ToUpper(s)]; ok {
		return oid, nil
	}
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("has an attribute type %q that is not known: write its object identifier", s)
		}
		oid = append(oid, int(n))
	}
	return oid, nil
}

const escapable = ` "#+,;<=>\`

// unescape reads a value of RFC 4514 section 2.4.
func unescape(s string) (string, error) {
	s = strings.TrimLeft(s, " ")
	var b strings.Builder
	end := 0 // of what is no space that may be left out
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ':
			b.WriteByte(c)
			continue
		case c == '\\' && i+1 < len(s) && strings.IndexByte(escapable, s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		case c == '\\' && i+2 < len(s):
			octet, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", fmt.Errorf("has a wrong escape in %q", s)
			}
			b.Write(octet)
			i += 2
		case strings.IndexByte(`"\;<>`, c) >= 0, c == '#' && i == 0:
			return "", fmt.Errorf("has an unescaped %q in %q", c, s)
		default:
			b.WriteByte(c)
		}
		end = b.Len()
	}
	if end == 0 {
		return "", errors.New("has an empty value")
	}
	return b.String()[:end], nil
}
