package mesh

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The scalars of documents: each checks what is written when it is read.

// name is what documents and routes are called.
type name string

const namePattern = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`

var validName = regexp.MustCompile(namePattern)

func (n *name) UnmarshalText(text []byte) error {
	*n = name(text)
	if !validName.Match(text) {
		return fmt.Errorf(`%q is not a name: write up to 63 of a-z, 0-9 and "-", with a letter or digit at both ends`, text)
	}
	return nil
}

// trustDomain is a SPIFFE trust domain name (SPIFFE-ID, section 2.1).
type trustDomain string

const trustDomainPattern = `^[a-z0-9][a-z0-9._-]{0,254}$`

var validTrustDomain = regexp.MustCompile(trustDomainPattern)

func (d *trustDomain) UnmarshalText(text []byte) error {
	*d = trustDomain(text)
	if validTrustDomain.Match(text) {
		return nil
	}
	hint, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(string(text)), "spiffe://"), "/")
	if !validTrustDomain.MatchString(hint) {
		hint = "shop.example"
	}
	return fmt.Errorf("%q is not a SPIFFE trust domain (a-z, 0-9, \".\", \"-\" and \"_\"): write %q", text, hint)
}

// duration is written like 30s.
type duration time.Duration

func (d duration) std() time.Duration { return time.Duration(d) }

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	if err != nil {
		return fmt.Errorf("%q is not a duration: write a number and a unit, such as 30s, 5m or 1h", text)
	}
	return nil
}

// size is a number of bytes.
type size uint32

func (z *size) UnmarshalText(text []byte) error {
	number, unit := strings.TrimRight(string(text), "KMiB"), 1
	switch strings.TrimPrefix(string(text), number) {
	case "B":
	case "KiB":
		unit = 1 << 10
	case "MiB":
		unit = 1 << 20
	default:
		unit = 0
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || unit == 0 || n*uint64(unit) > math.MaxUint32 {
		return fmt.Errorf("%q is not a size: write a number and a unit, such as 512B, 64KiB or 1MiB", text)
	}
	*z = size(n * uint64(unit))
	return nil
}

// timestamp is a point in time.
type timestamp struct{ time.Time }

func (t *timestamp) UnmarshalText(text []byte) error {
	parsed, err := time.Parse(time.RFC3339, string(text))
	t.Time = parsed
	if err != nil {
		return fmt.Errorf("%q is not a date and time: write it as 2027-01-31T00:00:00Z, in quotes", text)
	}
	return nil
}

// clientID is what an OAuth client is called: RFC 6749, appendix A.1, but for
// spaces.
type clientID string

func (c *clientID) UnmarshalText(text []byte) error {
	*c = clientID(text)
	if len(text) == 0 || len(text) > 256 || strings.ContainsFunc(string(text), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("%q is not a client id: write up to 256 ASCII characters without spaces", text)
	}
	return nil
}

// identifier names somebody, byte for byte.
type identifier string

const maxIdentifierLength = 256

func (n *identifier) UnmarshalText(text []byte) error {
	*n = identifier(text)
	return checkIdentifier(string(text))
}

func checkIdentifier(text string) error {
	switch {
	case text == "":
		return errors.New("is empty: write something, or remove the key")
	case len(text) > maxIdentifierLength:
		return fmt.Errorf("must be at most %d bytes long", maxIdentifierLength)
	case !utf8.ValidString(text) || strings.TrimSpace(text) != text || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%q must be printable text without space around it", text)
	}
	return nil
}

// userName is the name that somebody logs in with (RFC 7617), in the form that
// browsers send.
type userName string

func (n *userName) UnmarshalText(text []byte) error {
	*n = userName(text)
	switch {
	case strings.Contains(string(text), ":"):
		return fmt.Errorf("%q must have no colon", text)
	case !norm.NFC.IsNormal(text):
		return fmt.Errorf("%q is not in Unicode's normalization form C, which is what browsers send: type it anew", text)
	}
	return checkIdentifier(string(text))
}

// moduleFile is the name of a file with a Rego module.
type moduleFile string

const moduleFilePattern = `^[A-Za-z0-9_][A-Za-z0-9_.-]*\.rego$`

var validModuleFile = regexp.MustCompile(moduleFilePattern)

func (f *moduleFile) UnmarshalText(text []byte) error {
	*f = moduleFile(text)
	if !validModuleFile.Match(text) {
		return fmt.Errorf("%q is not the name of a file beside the documents that ends in .rego", text)
	}
	return nil
}

// moduleText is a Rego module.
type moduleText string

func (t *moduleText) UnmarshalText(text []byte) error {
	*t = moduleText(text)
	if !utf8.Valid(text) || bytes.ContainsRune(text, 0) {
		return errors.New("is no text in UTF-8")
	}
	return nil
}

// scopeToken is a scope (RFC 6749, section 3.3).
type scopeToken string

const scopePattern = `^[!#-\[\]-~]+$`

var validScope = regexp.MustCompile(scopePattern)

func (t *scopeToken) UnmarshalText(text []byte) error {
	*t = scopeToken(text)
	if !validScope.Match(text) {
		return fmt.Errorf("%q is no scope: write ASCII characters without spaces, quotes and backslashes", text)
	}
	return nil
}

// claimPath is the name of a claim, or a JSON Pointer (RFC 6901).
type claimPath string

const (
	claimPathPattern   = `^[^/]|^(/([^/~]|~[01])+)+$`
	maxClaimPathLength = 128
)

var validClaimPath = regexp.MustCompile(claimPathPattern)

func (p *claimPath) UnmarshalText(text []byte) error {
	*p = claimPath(text)
	switch {
	case len(text) == 0:
		return errors.New("is empty: write something, or remove the key")
	case len(text) > maxClaimPathLength:
		return fmt.Errorf("must be at most %d bytes long", maxClaimPathLength)
	case !validClaimPath.Match(text):
		return fmt.Errorf("%q is no JSON Pointer: write one such as /realm_access/roles, with ~1 for a slash in a name, and ~0 for ~", text)
	}
	return nil
}

// keyID is the public part of an API key.
type keyID string

const keyIDPattern = `^[0-9A-Za-z]{10}$`

var validKeyID = regexp.MustCompile(keyIDPattern)

func (k *keyID) UnmarshalText(text []byte) error {
	*k = keyID(text)
	if !validKeyID.Match(text) {
		// What stands there may be the key itself.
		return errors.New("is not the id of an API key, 10 letters and digits: make keys with chancery apikey create")
	}
	return nil
}

// keyHash is of an API key.
type keyHash string

const keyHashPattern = `^sha256:[0-9a-f]{64}$`

var validKeyHash = regexp.MustCompile(keyHashPattern)

func (h *keyHash) UnmarshalText(text []byte) error {
	*h = keyHash(text)
	if !validKeyHash.Match(text) {
		// It might be the key itself, which nobody shall read in an error.
		return errors.New("is not sha256: with 64 hexadecimal digits: make keys with chancery apikey create")
	}
	return nil
}

// passwordHash is of a user's password.
type passwordHash string

const passwordHashPattern = `^\$[!-~]{1,255}$` //nolint:gosec // the form of one

var validPasswordHash = regexp.MustCompile(passwordHashPattern)

func (h *passwordHash) UnmarshalText(text []byte) error {
	*h = passwordHash(text)
	if !validPasswordHash.Match(text) {
		// It might be the password, which nobody shall read in an error.
		return errors.New("is no hash of a password: make one with chancery password")
	}
	return nil
}

// secretName names the file of a secret.
type secretName string

func (n *secretName) UnmarshalText(text []byte) error {
	*n = secretName(text)
	if !validName.Match(text) {
		// It might be the secret, which nobody shall read in an error.
		return errors.New(`is no name of a secret: write up to 63 of a-z, 0-9 and "-", and the secret itself into a file of that name`)
	}
	return nil
}

// word is one of which lists stand in one text, such as acr_values: a scope, in
// its form.
type word string

func (w *word) UnmarshalText(text []byte) error {
	*w = word(text)
	if len(text) > maxIdentifierLength || !validScope.Match(text) {
		return fmt.Errorf("%.300q is not one word: write ASCII characters without spaces, quotes and backslashes", text)
	}
	return nil
}

// validVariable is what conditions can read with a dot.
var validVariable = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]{0,62}$`)

// dataValues are values of any form.
type dataValues map[string]any

// period is a duration, or one of its units by name.
type period time.Duration

func (p period) std() time.Duration { return time.Duration(p) }

func (p *period) UnmarshalText(text []byte) error {
	switch string(text) {
	case "second":
		*p = period(time.Second)
	case "minute":
		*p = period(time.Minute)
	case "hour":
		*p = period(time.Hour)
	default:
		if err := (*duration)(p).UnmarshalText(text); err != nil {
			return fmt.Errorf("%q is not a period: write second, minute, hour, or a duration such as 10s", text)
		}
	}
	return nil
}

// expression is CEL; it may run over several lines.
type expression string

// listenAddress is an IP address and a port.
type listenAddress struct{ netip.AddrPort }

func (a *listenAddress) UnmarshalText(text []byte) error {
	address, err := netip.ParseAddrPort(string(text))
	if err != nil || address.Port() == 0 || address.Addr().Zone() != "" {
		return fmt.Errorf("%q is not an IP address with a port: write 0.0.0.0:8443 for port 8443 of all addresses", text)
	}
	a.AddrPort = address
	return nil
}

// urlHost is the host of a URL, with a port where it has one.
type urlHost string

const urlHostPattern = `^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`

var validURLHost = regexp.MustCompile(urlHostPattern)

func (h *urlHost) UnmarshalText(text []byte) error {
	*h = urlHost(text)
	if !validURLHost.Match(text) {
		return fmt.Errorf("%q is not the host of a URL: write www.googleapis.com, or keys.example:8443", text)
	}
	return nil
}

// cidr is a network.
type cidr struct{ netip.Prefix }

func (c *cidr) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	c.Prefix = prefix
	address, addressErr := netip.ParseAddr(string(text))
	switch {
	case addressErr == nil && address.Zone() == "":
		return fmt.Errorf("%q is one address: write %q", text, netip.PrefixFrom(address, address.BitLen()))
	case err != nil:
		return fmt.Errorf("%q is not a network: write an address and its length, such as 10.1.2.0/24", text)
	case prefix.Addr().Is4In6():
		return fmt.Errorf("%q is IPv4 written as IPv6: write the IPv4 network", text)
	case prefix != prefix.Masked():
		return fmt.Errorf("%q has bits beyond its length: write %q", text, prefix.Masked())
	case prefix.Bits() == 0:
		return fmt.Errorf("%q is everybody: write the networks that are meant", text)
	}
	return nil
}

// alternateName is a subject alternative name.
type alternateName string

func (n *alternateName) UnmarshalText(text []byte) error {
	*n = alternateName(text)
	if strings.Contains(string(text), "*") {
		return fmt.Errorf(`%q has a "*", but names are compared byte for byte: write each name out`, text)
	}
	for _, c := range text {
		if c <= ' ' || c >= 0x7f {
			return fmt.Errorf("%q is not ASCII without spaces, as names in certificates are: write it as the certificate does", text)
		}
	}
	return checkText(reflect.TypeFor[alternateName](), string(text))
}

// UnmarshalText is [ParsePattern] in the form that decoders look for.
func (p *Pattern) UnmarshalText(text []byte) error {
	pattern, err := ParsePattern(string(text))
	*p = pattern
	return err
}

// MarshalText returns the pattern as it was written.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.text), nil }

// setText sets a scalar to what text says.
func setText(v reflect.Value, text string) error {
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return checkText(v.Type(), text)
	case reflect.Bool:
		v.SetBool(strings.EqualFold(text, "true"))
	case reflect.Uint32:
		n, err := strconv.ParseUint(text, 10, 32)
		v.SetUint(n)
		// YAML reads 010 as 8, most people as 10.
		if err != nil || strconv.FormatUint(n, 10) != text {
			return fmt.Errorf("%s is not a whole number from 0 to %d", text, uint32(1<<32-1))
		}
	}
	return nil
}

func checkText(t reflect.Type, text string) error {
	switch {
	case strings.TrimSpace(text) == "":
		return errors.New("is empty: write something, or remove the key")
	case t == reflect.TypeFor[expression]():
		return nil
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("has a control character, or another that does not show: remove it")
	case strings.TrimSpace(text) != text:
		return errors.New("has a space at its begin or end: remove it")
	}
	return nil
}
