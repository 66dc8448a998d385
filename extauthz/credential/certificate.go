package credential

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/internal/altname"
	"github.com/chancery-mesh/chancery/internal/jose"
)

// Certificate is what counts of a client's: one that its TLS connection was made
// with, which means that Envoy verified it. It is immutable.
type Certificate struct {
	thumbprint   [sha256.Size]byte
	begins, ends time.Time
	// names are all that it has, in the order of nameTypes.
	names []certificateName
}

// certificateName is a name with its type, byte for byte.
type certificateName struct {
	typ   nameType
	value string
}

// nameType is the type of a name: of a subject alternative name, its ASN.1 tag
// (RFC 5280 section 4.2.1.6); or the subject.
type nameType int

const (
	nameSubject nameType = -1
	nameEmail            = nameType(altname.Email)
	nameDNS              = nameType(altname.DNS)
	nameURI              = nameType(altname.URI)
)

// nameTypes are in the order that decides whose a certificate of several is.
var nameTypes = []nameType{nameURI, nameDNS, nameEmail, nameSubject}

// MaxCertificateSize bounds a certificate as Envoy writes it, in bytes.
const MaxCertificateSize = 16 << 10

// ParseCertificate reads the certificate of a connection as Envoy writes it: PEM,
// URL-encoded. Never give it what stands in a header.
func ParseCertificate(text string) (*Certificate, error) {
	c, err := DecodeCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("client's certificate: %w", err)
	}
	names, err := namesOf(c)
	if err != nil {
		return nil, fmt.Errorf("client's certificate: %w", err)
	}
	return &Certificate{thumbprint: sha256.Sum256(c.Raw), begins: c.NotBefore, ends: c.NotAfter, names: names}, nil
}

// DecodeCertificate reads any certificate as [ParseCertificate] does, whatever it
// says.
func DecodeCertificate(text string) (*x509.Certificate, error) {
	if len(text) > MaxCertificateSize {
		return nil, errors.New("is too large")
	}
	decoded, err := url.PathUnescape(text)
	if err != nil {
		return nil, errors.New("is not URL-encoded")
	}
	block, rest := pem.Decode([]byte(decoded))
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		return nil, errors.New("is not one certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// Size returns about how many bytes c holds.
func (c *Certificate) Size() int {
	const itself, each = 256, 48 // a name, and the memory that its text is in
	size := itself
	for _, name := range c.names {
		size += each + len(name.value)
	}
	return size
}

var subjectAlternativeName = asn1.ObjectIdentifier{2, 5, 29, 17}

// namesOf reads the names as they stand in c: what x509 makes of a URI is another
// text.
func namesOf(c *x509.Certificate) ([]certificateName, error) {
	byType := make(map[nameType][]string)
	for _, extension := range c.Extensions {
		if !extension.Id.Equal(subjectAlternativeName) {
			continue
		}
		var alternatives []asn1.RawValue
		if _, err := asn1.Unmarshal(extension.Value, &alternatives); err != nil {
			return nil, fmt.Errorf("subject alternative names: %w", err)
		}
		for _, a := range alternatives {
			if a.Class != asn1.ClassContextSpecific || a.IsCompound {
				continue // no name of these types, whatever its tag
			}
			byType[nameType(a.Tag)] = append(byType[nameType(a.Tag)], string(a.Bytes))
		}
	}
	var subject pkix.RDNSequence
	if _, err := asn1.Unmarshal(c.RawSubject, &subject); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	if name, ok := canonicalName(subject); ok {
		byType[nameSubject] = []string{name}
	}
	var names []certificateName
	for _, typ := range nameTypes {
		for _, value := range byType[typ] {
			names = append(names, certificateName{typ, value})
		}
	}
	return names, nil
}

// CertificateNames are the names that client certificates may have, each of which
// is a user. It is immutable and safe for concurrent use.
type CertificateNames struct{ users map[certificateName]*Identity }

// NewCertificateNames reads names as documents have them. A certificate must have
// one of names among its subject alternative names, byte for byte: a URI such as
// a SPIFFE ID, a DNS name or an email address; or one of subjects (RFC 4514,
// "CN=billing,O=Partner"), the same in the types, values and order of attributes.
// There are no wildcards.
func NewCertificateNames(names, subjects []string) (*CertificateNames, error) {
	if len(names)+len(subjects) == 0 {
		return nil, errors.New("names of client certificates: none")
	}
	n := &CertificateNames{users: make(map[certificateName]*Identity, len(names)+len(subjects))}
	var errs []error
	for _, list := range []struct {
		names []string
		parse func(string) (certificateName, error)
	}{{names, parseAlternativeName}, {subjects, parseSubject}} {
		for _, name := range list.names {
			parsed, err := list.parse(name)
			if err != nil {
				errs = append(errs, fmt.Errorf("names of client certificates: %w", err))
			}
			n.users[parsed] = &Identity{Kind: KindClientCertificate, User: name}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return n, nil
}

// CheckSubject says what is wrong with a subject of [NewCertificateNames].
func CheckSubject(name string) error {
	_, err := parseSubject(name)
	return err
}

func parseSubject(name string) (certificateName, error) {
	subject, err := parseName(name)
	if err == nil && !jose.IsIdentifier(name) {
		err = errors.New("is not printable text")
	}
	if err != nil {
		return certificateName{}, fmt.Errorf("%q %w", name, err)
	}
	canonical, ok := canonicalName(subject)
	if !ok {
		return certificateName{}, fmt.Errorf("%q is not text", name)
	}
	return certificateName{nameSubject, canonical}, nil
}

// parseAlternativeName finds out of which type a name is.
func parseAlternativeName(name string) (certificateName, error) {
	typ := nameType(altname.TypeOf(name))
	switch {
	case !jose.IsIdentifier(name):
		return certificateName{}, fmt.Errorf("%q is not printable text", name)
	case typ == nameDNS && strings.Contains(name, "*"):
		return certificateName{}, fmt.Errorf("%q has a wildcard: write each name", name)
	}
	return certificateName{typ, name}, nil
}

// NameCertificate gives a certificate that is to be made the names that documents
// write, so that [NewCertificateNames] of any of them lets it in. An empty subject
// is none.
func NameCertificate(template *x509.Certificate, names []string, subject string) error {
	alternatives := make([]asn1.RawValue, len(names))
	for i, name := range names {
		parsed, err := parseAlternativeName(name)
		if err != nil {
			return err
		}
		alternatives[i] = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: int(parsed.typ), Bytes: []byte(name)}
	}
	if len(names) > 0 {
		value, err := asn1.Marshal(alternatives)
		if err != nil {
			return err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: subjectAlternativeName, Value: value})
	}
	if subject == "" {
		return nil
	}
	parsed, err := parseName(subject)
	if err != nil {
		return fmt.Errorf("%q %w", subject, err)
	}
	template.RawSubject, err = asn1.Marshal(parsed)
	return err
}

// CertificateSkew is tolerated between here and where certificates are made.
const CertificateSkew = 5 * time.Second

// Verify returns who has the certificate of a connection, nil if it has none.
// What was good when the connection was made may have ended since. Of several
// names that it has, the first URI counts, else DNS name, email address, subject.
// An error is a [Reason].
func (n *CertificateNames) Verify(c *Certificate, now time.Time) (*Identity, error) {
	switch {
	case c == nil:
		return nil, Missing
	case now.After(c.ends.Add(CertificateSkew)), now.Before(c.begins.Add(-CertificateSkew)):
		return nil, CertificateExpired
	}
	for _, name := range c.names {
		if id, ok := n.users[name]; ok {
			return id, nil
		}
	}
	return nil, WrongName
}
