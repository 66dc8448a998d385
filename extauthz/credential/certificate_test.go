package credential_test

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

// newCertificate returns one as Envoy writes it, and its bytes. What no name says
// is as in an empty template.
func newCertificate(t testing.TB, change func(*x509.Certificate)) (text string, der []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	change(template)
	key := keys()["ES256"]
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return strings.ReplaceAll(url.QueryEscape(string(block)), "+", "%20"), der
}

func certificate(t testing.TB, change func(*x509.Certificate)) *credential.Certificate {
	t.Helper()
	text, _ := newCertificate(t, change)
	c, err := credential.ParseCertificate(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func uri(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// certificateNames takes what has an equals sign for a subject.
func certificateNames(t testing.TB, all ...string) *credential.CertificateNames {
	t.Helper()
	var names, subjects []string
	for _, name := range all {
		if strings.Contains(name, "=") {
			subjects = append(subjects, name)
		} else {
			names = append(names, name)
		}
	}
	n, err := credential.NewCertificateNames(names, subjects)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCertificateNames(t *testing.T) {
	t.Parallel()
	names := certificateNames(t, "spiffe://partner.test/billing", "api.partner.test", "ops@partner.test", "CN=billing,O=Partner")
	for name, row := range map[string]struct {
		change func(*x509.Certificate)
		want   string
	}{
		"SPIFFE ID":     {func(c *x509.Certificate) { c.URIs = []*url.URL{uri(t, "spiffe://partner.test/billing")} }, "spiffe://partner.test/billing"},
		"DNS name":      {func(c *x509.Certificate) { c.DNSNames = []string{"www.partner.test", "api.partner.test"} }, "api.partner.test"},
		"email address": {func(c *x509.Certificate) { c.EmailAddresses = []string{"ops@partner.test"} }, "ops@partner.test"},
		"subject": {
			func(c *x509.Certificate) {
				c.Subject = pkix.Name{CommonName: "billing", Organization: []string{"Partner"}}
			},
			"CN=billing,O=Partner",
		},
		"several": {
			func(c *x509.Certificate) {
				c.DNSNames, c.EmailAddresses = []string{"api.partner.test"}, []string{"ops@partner.test"}
				c.URIs = []*url.URL{uri(t, "https://x.test/"), uri(t, "spiffe://partner.test/billing")}
			},
			"spiffe://partner.test/billing",
		},
		"URI in other case":      {func(c *x509.Certificate) { c.URIs = []*url.URL{uri(t, "spiffe://partner.test/Billing")} }, ""},
		"URI below":              {func(c *x509.Certificate) { c.URIs = []*url.URL{uri(t, "spiffe://partner.test/billing/x")} }, ""},
		"URI encoded":            {func(c *x509.Certificate) { c.URIs = []*url.URL{uri(t, "spiffe://partner.test/%62illing")} }, ""},
		"DNS name in other case": {func(c *x509.Certificate) { c.DNSNames = []string{"API.partner.test"} }, ""},
		"wildcard":               {func(c *x509.Certificate) { c.DNSNames = []string{"*.partner.test"} }, ""},
		"DNS name as email":      {func(c *x509.Certificate) { c.EmailAddresses = []string{"api.partner.test"} }, ""},
		"email as URI":           {func(c *x509.Certificate) { c.URIs = []*url.URL{{Opaque: "ops@partner.test"}} }, ""},
		"subject is a DNS name":  {func(c *x509.Certificate) { c.Subject.CommonName = "api.partner.test" }, ""},
		"subject with more": {
			func(c *x509.Certificate) {
				c.Subject = pkix.Name{CommonName: "billing", Organization: []string{"Partner"}, Country: []string{"CH"}}
			}, "",
		},
		"subject with less": {func(c *x509.Certificate) { c.Subject.CommonName = "billing" }, ""},
		"subject in text":   {func(c *x509.Certificate) { c.Subject.CommonName = "billing,O=Partner" }, ""},
		"nothing":           {func(*x509.Certificate) {}, ""},

		"by hand":               {alternativeName(asn1.ClassContextSpecific, false), "spiffe://partner.test/billing"},
		"of another ASN.1 type": {alternativeName(asn1.ClassApplication, false), ""},
		"private ASN.1 type":    {alternativeName(asn1.ClassPrivate, false), ""},
		"universal ASN.1 type":  {alternativeName(asn1.ClassUniversal, false), ""},
		"compound":              {alternativeName(asn1.ClassContextSpecific, true), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := names.Verify(certificate(t, row.change), now)
			switch {
			case row.want == "":
				if !errors.Is(err, credential.WrongName) || id != nil {
					t.Errorf("%v, %v", id, err)
				}
			case err != nil || id.User != row.want || id.Kind != credential.KindClientCertificate:
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
}

// alternativeName writes a URI's tag with a class that is not a URI's.
func alternativeName(class int, compound bool) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		name := asn1.RawValue{Class: class, Tag: 6, IsCompound: compound, Bytes: []byte("spiffe://partner.test/billing")}
		value, err := asn1.Marshal([]asn1.RawValue{name})
		if err != nil {
			panic(err)
		}
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
}

func TestCertificateNamesOverTime(t *testing.T) {
	t.Parallel()
	names := certificateNames(t, "a.test")
	c := certificate(t, func(c *x509.Certificate) { c.DNSNames = []string{"a.test"} })
	for after, want := range map[time.Duration]credential.Reason{
		0: "accepted", time.Hour: "accepted", time.Hour + 6*time.Second: credential.CertificateExpired,
		-time.Hour: "accepted", -time.Hour - 6*time.Second: credential.CertificateExpired,
	} {
		if _, err := names.Verify(c, now.Add(after)); reason(err) != want {
			t.Errorf("after %v: %v", after, err)
		}
	}
	if _, err := names.Verify(nil, now); !errors.Is(err, credential.Missing) {
		t.Errorf("without a certificate: %v", err)
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	type rdn = pkix.RelativeDistinguishedNameSET
	attribute := func(oid asn1.ObjectIdentifier, value string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: oid, Value: value}
	}
	cn, o, uid := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 10},
		asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	for name, row := range map[string]struct {
		text    string
		subject pkix.RDNSequence
		want    bool
	}{
		"plain":                {"CN=a", pkix.RDNSequence{{attribute(cn, "a")}}, true},
		"object identifier":    {"2.5.4.3=a", pkix.RDNSequence{{attribute(cn, "a")}}, true},
		"type in other case":   {"cn=a", pkix.RDNSequence{{attribute(cn, "a")}}, true},
		"value in other case":  {"CN=A", pkix.RDNSequence{{attribute(cn, "a")}}, false},
		"text goes backwards":  {"CN=a,O=b", pkix.RDNSequence{{attribute(o, "b")}, {attribute(cn, "a")}}, true},
		"other order":          {"O=b,CN=a", pkix.RDNSequence{{attribute(o, "b")}, {attribute(cn, "a")}}, false},
		"spaces around":        {"CN = a , O=b", pkix.RDNSequence{{attribute(o, "b")}, {attribute(cn, "a")}}, true},
		"space inside":         {"CN=a b", pkix.RDNSequence{{attribute(cn, "a b")}}, true},
		"set":                  {"CN=a+UID=u", pkix.RDNSequence{rdn{attribute(uid, "u"), attribute(cn, "a")}}, true},
		"set, other order":     {"UID=u+CN=a", pkix.RDNSequence{rdn{attribute(uid, "u"), attribute(cn, "a")}}, true},
		"set is no sequence":   {"CN=a+UID=u", pkix.RDNSequence{{attribute(uid, "u")}, {attribute(cn, "a")}}, false},
		"escaped comma":        {`CN=a\,O=b`, pkix.RDNSequence{{attribute(cn, "a,O=b")}}, true},
		"comma not escaped":    {`CN=a,O=b`, pkix.RDNSequence{{attribute(cn, "a,O=b")}}, false},
		"escaped octets":       {`CN=\c3\A4`, pkix.RDNSequence{{attribute(cn, "ä")}}, true},
		"escaped spaces":       {`CN=\ a\20`, pkix.RDNSequence{{attribute(cn, " a ")}}, true},
		"spaces count":         {`CN=a`, pkix.RDNSequence{{attribute(cn, "a ")}}, false},
		"quotes in the value":  {`CN=a\"`, pkix.RDNSequence{{attribute(cn, `a"`)}}, true},
		"plus in the value":    {`CN=a\+b`, pkix.RDNSequence{{attribute(cn, `a+b`)}}, true},
		"equals in the value":  {`CN=a=b`, pkix.RDNSequence{{attribute(cn, `a=b`)}}, true},
		"hash in the value":    {`CN=a#b`, pkix.RDNSequence{{attribute(cn, `a#b`)}}, true},
		"backslash":            {`CN=a\\`, pkix.RDNSequence{{attribute(cn, `a\`)}}, true},
		"other type":           {"O=a", pkix.RDNSequence{{attribute(cn, "a")}}, false},
		"two are not one":      {"CN=a", pkix.RDNSequence{{attribute(cn, "a")}, {attribute(cn, "a")}}, false},
		"colon in the value":   {"CN=https://a", pkix.RDNSequence{{attribute(cn, "https://a")}}, true},
		"at sign in the value": {"CN=a@b", pkix.RDNSequence{{attribute(cn, "a@b")}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := asn1.Marshal(row.subject)
			if err != nil {
				t.Fatal(err)
			}
			c := certificate(t, func(c *x509.Certificate) { c.RawSubject = raw })
			id, err := certificateNames(t, row.text).Verify(c, now)
			if (err == nil) != row.want {
				t.Errorf("%v, %v", id, err)
			}
		})
	}
}

func TestNewCertificateNamesRefuses(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", " a", "a\n", "*.partner.test", "*"} {
		if _, err := credential.NewCertificateNames([]string{"good.test", name}, nil); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
	for _, name := range []string{
		"", "CN=", "CN= ", "CN=a,", ",CN=a", "CN=a,,O=b", "CN", "=a", "X=a", "1.x=a", "CN=#0a", `CN=a\`, `CN=a\zz`, `CN=a"`, "CN=a;O=b",
		"CN=a<b", `CN=\ff`, "CN=a\n", "a.test", "CN=a\x00",
	} {
		if _, err := credential.NewCertificateNames([]string{"good.test"}, []string{name}); err == nil || credential.CheckSubject(name) == nil {
			t.Errorf("%q is a subject", name)
		}
	}
	if _, err := credential.NewCertificateNames(nil, nil); err == nil {
		t.Error("no names: accepted")
	}
}

func TestParseCertificateRefuses(t *testing.T) {
	t.Parallel()
	good, der := newCertificate(t, func(*x509.Certificate) {})
	if _, err := credential.ParseCertificate(good); err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	for name, text := range map[string]string{
		"empty":          "",
		"two":            good + good,
		"text after":     good + "x",
		"key":            block("PRIVATE KEY", der),
		"cut":            block("CERTIFICATE", der[:len(der)-1]),
		"more":           block("CERTIFICATE", append(slices.Clip(der), 0)),
		"no PEM":         base64.StdEncoding.EncodeToString(der),
		"encoding":       good + "%",
		"a chain":        "Cert=" + good,
		"XFCC's quotes":  `"` + good + `"`,
		"far too large":  good + strings.Repeat("%20", credential.MaxCertificateSize),
		"empty in PEM":   block("CERTIFICATE", nil),
		"another's name": block("CERTIFICATE REQUEST", der),
	} {
		if _, err := credential.ParseCertificate(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Attack row C18.
func TestBoundToken(t *testing.T) {
	t.Parallel()
	text, der := newCertificate(t, func(*x509.Certificate) {})
	mine, err := credential.ParseCertificate(text)
	if err != nil {
		t.Fatal(err)
	}
	other := certificate(t, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(2) })
	sum := sha256.Sum256(der)
	thumbprint := base64.RawURLEncoding.EncodeToString(sum[:])
	cnf := func(members map[string]any) string { return alter(t, "cnf", members) }
	v, cache := verifier(t, provider(t)), credential.NewCache(8)
	for name, row := range map[string]struct {
		token string
		peer  *credential.Certificate
		want  credential.Reason
	}{
		"C18 with it":                {cnf(map[string]any{"x5t#S256": thumbprint}), mine, "accepted"},
		"C18 without any":            {cnf(map[string]any{"x5t#S256": thumbprint}), nil, credential.Bound},
		"C18 with another":           {cnf(map[string]any{"x5t#S256": thumbprint}), other, credential.Bound},
		"C18 key of DPoP":            {cnf(map[string]any{"jkt": thumbprint}), mine, credential.Bound},
		"C18 key of DPoP besides":    {cnf(map[string]any{"x5t#S256": thumbprint, "jkt": thumbprint}), mine, credential.Bound},
		"C18 key itself":             {cnf(map[string]any{"jwk": map[string]any{}}), mine, credential.Bound},
		"C18 SHA-1":                  {cnf(map[string]any{"x5t": thumbprint}), mine, credential.Bound},
		"C18 empty":                  {cnf(map[string]any{}), mine, credential.Bound},
		"C18 empty thumbprint":       {cnf(map[string]any{"x5t#S256": ""}), mine, credential.Bound},
		"C18 part of the thumbprint": {cnf(map[string]any{"x5t#S256": thumbprint[:40]}), mine, credential.Bound},
		"C18 thumbprint a number":    {cnf(map[string]any{"x5t#S256": 0}), mine, credential.Bound},
		"C18 with padding":           {cnf(map[string]any{"x5t#S256": thumbprint + "="}), mine, credential.Bound},
		"C18 no object":              {alter(t, "cnf", "x"), mine, credential.Bound},
		"C18 null":                   {rawClaim(t, `"cnf":null`), mine, credential.Bound},
		"not bound, with one":        {alter(t), mine, "accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // the second from the cache
				_, err := cache.Verify(v, row.token, now, row.peer)
				_, err2 := v.Verify(row.token, now, row.peer)
				if reason(err) != row.want || reason(err2) != row.want {
					t.Errorf("%v, %v, want %v", err, err2, row.want)
				}
			}
		})
	}
	// The certificate may be shown by another later.
	token := cnf(map[string]any{"x5t#S256": thumbprint})
	for _, row := range []struct {
		peer *credential.Certificate
		want credential.Reason
	}{{mine, "accepted"}, {other, credential.Bound}, {nil, credential.Bound}, {mine, "accepted"}} {
		if _, err := cache.Verify(v, token, now, row.peer); reason(err) != row.want {
			t.Errorf("cached: %v, want %v", err, row.want)
		}
	}
}
