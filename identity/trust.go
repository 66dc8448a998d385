package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

var (
	// ErrRevoked says that a certificate was revoked.
	ErrRevoked = errors.New("certificate is revoked")
	// ErrAuthority says that who signed a certificate is not trusted, any more
	// or yet.
	ErrAuthority = errors.New("authority is not trusted")
)

// Trust is what certificates of the mesh are verified against. It is immutable
// and safe for concurrent use.
type Trust struct {
	message     *chancerypb.Trust
	roots       []*x509.Certificate
	authorities map[string]authority
	revoked     map[[sha256.Size]byte]bool
}

// authority is one issuing authority that is trusted.
type authority struct {
	crl     *x509.RevocationList
	serials map[string]bool // revoked, as the CRL says
	tainted bool
}

// ParseTrust reads a message whole: what it cannot read, or what contradicts
// itself, is an error.
func ParseTrust(m *chancerypb.Trust) (*Trust, error) {
	m = proto.CloneOf(m)
	t := &Trust{
		message:     m,
		authorities: map[string]authority{},
		revoked:     map[[sha256.Size]byte]bool{},
	}
	if !validTrustDomain.MatchString(m.GetTrustDomain()) {
		return nil, fmt.Errorf("trust names no trust domain, but %q", m.GetTrustDomain())
	}
	for _, parse := range []func() error{t.parseRoots, t.parseAuthorities, t.parseRevoked} {
		if err := parse(); err != nil {
			return nil, fmt.Errorf("trust %d of %q: %w", m.GetSequence(), m.GetTrustDomain(), err)
		}
	}
	return t, nil
}

func (t *Trust) parseRoots() error {
	for i, der := range t.message.GetRoots() {
		root, err := x509.ParseCertificate(der)
		if err == nil {
			err = checkAuthority(root, t.TrustDomain())
		}
		if err != nil {
			return fmt.Errorf("root %d: %w", i, err)
		}
		t.roots = append(t.roots, root)
	}
	if len(t.roots) == 0 {
		return errors.New("it has no root")
	}
	return nil
}

func (t *Trust) parseAuthorities() error {
	for _, a := range t.message.GetAuthorities() {
		id := a.GetId()
		crl, err := x509.ParseRevocationList(a.GetCrl())
		if err != nil {
			return fmt.Errorf("revocation list of authority %q: %w", id, err)
		}
		if _, twice := t.authorities[id]; twice || id == "" || hex.EncodeToString(crl.AuthorityKeyId) != id {
			return fmt.Errorf("revocation list of authority %q is of another", id)
		}
		serials := map[string]bool{}
		for _, r := range crl.RevokedCertificateEntries {
			serials[r.SerialNumber.String()] = true
		}
		t.authorities[id] = authority{crl: crl, serials: serials, tainted: a.GetTainted()}
	}
	if len(t.authorities) == 0 {
		return errors.New("it has no authority")
	}
	return nil
}

func (t *Trust) parseRevoked() error {
	for i, r := range t.message.GetRevoked() {
		if len(r.GetFingerprint()) != sha256.Size {
			return fmt.Errorf("revoked certificate %d has no SHA-256 fingerprint", i)
		}
		t.revoked[[sha256.Size]byte(r.GetFingerprint())] = true
	}
	return nil
}

// Verify returns whom a chain, leaf first, stands for at a moment. The leaf
// must be an X.509-SVID of the trust domain, lead to a root, be signed by an
// authority that is trusted, and not be revoked.
func (t *Trust) Verify(chain []*x509.Certificate, now time.Time) (ID, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return ID{}, fmt.Errorf("chain has %d certificates, not 1 to %d", len(chain), maxChain)
	}
	id, err := nameOf(chain[0], t.TrustDomain())
	if err != nil {
		return ID{}, err
	}
	paths, err := findPaths(chain, t.roots, now)
	if err != nil {
		return ID{}, fmt.Errorf("certificate of %s: %w", id, err)
	}
	for _, path := range paths {
		if err = t.checkPath(path); err == nil {
			return id, nil
		}
	}
	return ID{}, fmt.Errorf("certificate of %s, serial %x: %w", id, chain[0].SerialNumber, err)
}

// findPaths returns the ways from a leaf to roots. There is one at least, and
// each has an issuer.
func findPaths(chain, roots []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	if err := checkLeaf(chain[0]); err != nil {
		return nil, err
	}
	anchors, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		anchors.AddCert(c)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	return chain[0].Verify(x509.VerifyOptions{
		Roots: anchors, Intermediates: intermediates, CurrentTime: now,
		// checkLeaf wants more of the leaf. Issuers may have no usages at all,
		// or these two.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
}

// checkPath asks of a path that [x509] found what [x509] does not.
func (t *Trust) checkPath(path []*x509.Certificate) error {
	if len(path) < 2 {
		return fmt.Errorf("%w: it has no issuer", ErrAuthority)
	}
	for _, c := range path[1:] {
		if err := checkAuthority(c, t.TrustDomain()); err != nil {
			return err
		}
	}
	leaf, issuer := path[0], path[1]
	id := hex.EncodeToString(issuer.SubjectKeyId)
	a, ok := t.authorities[id]
	if !ok || id != hex.EncodeToString(leaf.AuthorityKeyId) {
		return fmt.Errorf("%w: %q", ErrAuthority, id)
	}
	// A key identifier is a claim: one that was revoked could sign another with
	// a trusted one's. The list was signed with the trusted one's key.
	if err := a.crl.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("%w: another than %q calls itself so", ErrAuthority, id)
	}
	if a.serials[leaf.SerialNumber.String()] || t.IsRevoked(sha256.Sum256(leaf.Raw)) {
		return ErrRevoked
	}
	return nil
}

// Message returns what t was made from; it must not be changed.
func (t *Trust) Message() *chancerypb.Trust { return t.message }

// Sequence grows with every change.
func (t *Trust) Sequence() uint64 { return t.message.GetSequence() }

// TrustDomain returns whose trust this is.
func (t *Trust) TrustDomain() string { return t.message.GetTrustDomain() }

// Roots returns the trust bundle; it must not be changed.
func (t *Trust) Roots() []*x509.Certificate { return t.roots }

// IsRevoked reports whether the certificate with a SHA-256 fingerprint was
// revoked.
func (t *Trust) IsRevoked(fingerprint [sha256.Size]byte) bool { return t.revoked[fingerprint] }

// IsTainted reports whether certificates of an authority are to be renewed now.
func (t *Trust) IsTainted(authority string) bool { return t.authorities[authority].tainted }

// HasAuthority reports whether an authority is trusted.
func (t *Trust) HasAuthority(id string) bool {
	_, ok := t.authorities[id]
	return ok
}
