package credential

import (
	"encoding/base64"
	"net/url"
	"strings"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// Found is what a request carries, nothing of it verified.
type Found struct {
	// Kinds are those that there are. Certificates are not among them: Find does
	// not see the connection.
	Kinds Kind
	// AccessToken, IDToken and APIKey are empty if there is none.
	AccessToken, IDToken, APIKey string
	// Basic is of Authorization: Basic.
	Basic Basic
}

// Basic is a name with a password, as a client sent them.
type Basic struct{ User, Password string }

// Headers that credentials are taken from.
const (
	HeaderAuthorization = "authorization"
	HeaderIDToken       = "x-id-token"
	HeaderAPIKey        = "x-api-key"
)

// Find finds every credential of a request, each in the one place that it has:
// an access token or a name with a password in Authorization, an ID token in
// x-id-token, an API key in x-api-key. Lines returns the lines of a header,
// whose name is in lower case; query is that of the request target.
//
// There must be at most one of each: of two, somebody else might read the
// other. So the other place that RFC 6750 has for access tokens, the query, must
// be empty. A request without any credential is no error. An error is a
// [Reason], and kinds says what was found before it.
func Find(lines func(name string) []string, query string) (found Found, err error) {
	if err = found.authorization(lines(HeaderAuthorization)); err != nil {
		return found, err
	}
	if found.IDToken, err = single(lines(HeaderIDToken)); err != nil {
		return found, err
	}
	if found.IDToken != "" {
		found.Kinds |= KindIDToken
	}
	if found.APIKey, err = single(lines(HeaderAPIKey)); err != nil {
		return found, err
	}
	if found.APIKey != "" {
		found.Kinds |= KindAPIKey
	}
	switch {
	case !hasAccessToken(query):
		return found, nil
	case found.Kinds == 0:
		return found, Unsupported
	}
	return found, Ambiguous
}

// single returns the value of a header that has at most one line; empty only if
// it has none.
func single(lines []string) (string, error) {
	switch {
	case len(lines) == 0:
		return "", nil
	case len(lines) > 1 || strings.Contains(lines[0], ","):
		return "", Ambiguous
	case !IsToken68(lines[0]):
		return "", Malformed
	}
	return lines[0], nil
}

func (f *Found) authorization(lines []string) error {
	switch {
	case len(lines) == 0:
		return nil
	case len(lines) > 1 || strings.Contains(lines[0], ","):
		return Ambiguous
	}
	scheme, credentials, _ := strings.Cut(lines[0], " ")
	basic := strings.EqualFold(scheme, "Basic")
	switch {
	case !basic && !strings.EqualFold(scheme, "Bearer"):
		return Unsupported
	case !IsToken68(credentials):
		return Malformed
	case basic:
		f.Kinds |= KindBasic
		return f.Basic.parse(credentials)
	}
	f.Kinds |= KindAccessToken
	f.AccessToken = credentials
	return nil
}

// IsToken68 reports whether s is what RFC 9110 section 11.2 calls so, which all
// credentials are, and not too long.
func IsToken68(s string) bool {
	if len(s) > MaxTokenSize {
		return false
	}
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		if !token68[s[i]] {
			return false
		}
	}
	return s != ""
}

// token68 are the bytes that RFC 9110 section 11.2 allows. A table, since each
// request has a thousand or so to look at.
var token68 = func() (allowed [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/") {
		allowed[c] = true
	}
	return allowed
}()

// parse reads the credentials of RFC 7617. An empty name or password is none.
func (b *Basic) parse(credentials string) error {
	const maxSize = 2 << 10
	if len(credentials) > maxSize {
		return Malformed
	}
	text, err := base64.StdEncoding.Strict().DecodeString(credentials)
	if err != nil {
		return Malformed
	}
	user, password, _ := strings.Cut(string(text), ":")
	if user == "" || !IsPassword(password) {
		return Malformed
	}
	*b = Basic{User: user, Password: password}
	return nil
}

// hasAccessToken reports whether a query has a parameter access_token, by
// whatever rules a service may read it.
func hasAccessToken(query string) bool {
	if len(query) < len("access_token") {
		return false
	}
	for part := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(part, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		if strings.EqualFold(name, "access_token") {
			return true
		}
	}
	return false
}

// ClaimedIssuer returns whom a token names as its issuer, empty if it cannot be
// read. Nothing of it is verified: it says which [Verifier] to ask, if any.
func ClaimedIssuer(token string) string {
	t, err := jose.Parse(token, MaxTokenSize)
	if err != nil {
		return ""
	}
	issuer, _, _ := t.Claims.String("iss") // empty if it is no text
	return issuer
}
