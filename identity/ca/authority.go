package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// State is where an authority is in its life.
type State string

// The states of an authority, in their order.
const (
	// Prepared: trusted already, signs nothing yet.
	Prepared State = "prepared"
	// Active: signs.
	Active State = "active"
	// Old: what it signed is good until it ends.
	Old State = "old"
	// Tainted: still trusted, but everybody renews at once.
	Tainted State = "tainted"
	// Revoked: nothing that it signed is trusted.
	Revoked State = "revoked"
)

// Fingerprint is the SHA-256 of a DER certificate; as text it is in hex.
type Fingerprint [sha256.Size]byte

// String returns the fingerprint in lower-case hex.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText implements encoding.TextMarshaler.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(f) {
		return fmt.Errorf("fingerprint %q is not %d hexadecimal digits", text, 2*len(f))
	}
	copy(f[:], raw)
	return nil
}

// Authority is an issuing certificate. It is immutable.
type Authority struct {
	// ID is the subject key identifier in hex: the authority key identifier
	// of what it signs.
	ID    string `json:"id"`
	State State  `json:"state"`
	// Root is the root above it.
	Root      Fingerprint `json:"root"`
	NotBefore time.Time   `json:"not_before"`
	NotAfter  time.Time   `json:"not_after"`
	// Since is when it entered its state, and Sequence that of the first Trust
	// that shows it there.
	Since    time.Time `json:"since"`
	Sequence uint64    `json:"sequence"`
	// External tells that another process keeps the private key.
	External bool `json:"external,omitempty"`
}

// Lifetime is how long the authority lives from when it was made.
func (a Authority) Lifetime() time.Duration { return a.NotAfter.Sub(a.NotBefore) - backdate }

// issuer is an authority with what it takes to sign.
type issuer struct {
	Authority
	cert, root *x509.Certificate
	// key is nil once the authority is revoked.
	key crypto.Signer
}

// trusted reports whether Trust has the authority.
func (i *issuer) trusted() bool { return i.State != Revoked }

// with returns the issuer in another state.
func (i *issuer) with(s State, now time.Time, sequence uint64) *issuer {
	next := *i
	next.State, next.Since, next.Sequence = s, now.UTC(), sequence
	if s == Revoked {
		next.key = nil
	}
	return &next
}

func newIssuer(cert, root *x509.Certificate, key crypto.Signer) *issuer {
	return &issuer{
		Authority: Authority{
			ID:        hex.EncodeToString(cert.SubjectKeyId),
			Root:      sha256.Sum256(root.Raw),
			NotBefore: cert.NotBefore,
			NotAfter:  cert.NotAfter,
			External:  !extractable(key),
		},
		cert: cert, root: root, key: key,
	}
}

// Authorities returns all authorities that have not ended, oldest first.
func (ca *CA) Authorities() []Authority {
	var all []Authority
	for _, i := range ca.snapshot().authorities {
		all = append(all, i.Authority)
	}
	return all
}

// makeAuthority makes an issuing certificate under a root.
func makeAuthority(r *root, trustDomain string, now time.Time, lifetime time.Duration) (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := authorityTemplate("issuing authority", trustDomain, key.Public())
	if err != nil {
		return nil, err
	}
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(lifetime)
	if template.NotAfter.After(r.cert.NotAfter) {
		template.NotAfter = r.cert.NotAfter
	}
	template.MaxPathLenZero = true
	cert, err := create(template, r.cert, key.Public(), r.key)
	if err != nil {
		return nil, fmt.Errorf("sign issuing authority of %q: %w", trustDomain, err)
	}
	return newIssuer(cert, r.cert, key), nil
}

// authorityTemplate is what roots and issuing certificates have in common.
func authorityTemplate(kind, trustDomain string, pub crypto.PublicKey) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	// RFC 7093, method 1. In the name as well: TLS stacks look for issuers and
	// their revocation lists by name, so no two may share one.
	id := sha256.Sum256(spki)
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{"Chancery"}, CommonName: kind + " " + hex.EncodeToString(id[:6])},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          slices.Clone(id[:20]),
	}, nil
}

// signatureAlgorithm is what external signers expect, on any curve.
const signatureAlgorithm = x509.ECDSAWithSHA256

// create signs a template and reads the certificate as others will.
func create(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	template.SignatureAlgorithm = signatureAlgorithm
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
