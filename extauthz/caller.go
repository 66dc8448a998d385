package extauthz

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/identity"
)

// identifyCaller finds out who is on the other side of the connection: a
// workload with a certificate that is still good, or, on a connection in the
// clear, nobody.
func (c *check) identifyCaller() (caller identity.ID, clear bool, v verdict) {
	c.Caller = c.request.caller
	if c.Caller == "" && c.request.certificate == "" {
		if c.rule.plaintext {
			return identity.ID{}, true, allowed
		}
		return identity.ID{}, true, callerNotAllowed
	}
	caller, ok := c.rule.callers[c.Caller]
	if !ok {
		return identity.ID{}, false, callerNotAllowed
	}
	if c.hypothesis != nil {
		c.note("caller_certificate", "", outcomeSkipped)
		return caller, false, allowed
	}
	return caller, false, c.checkCertificate()
}

// checkCertificate looks at the certificate of a connection once more. It was
// good when the connection was made, and that may be a while ago.
func (c *check) checkCertificate() verdict {
	if c.state.trust == nil {
		return noTrust
	}
	if c.request.certificate == "" {
		return callerCertificateMissing
	}
	certificate, err := c.server.callers.parse(c.request.certificate)
	if err != nil {
		c.Cause = err
		return callerCertificateInvalid
	}
	trust := c.state.trust
	switch {
	case certificate.spiffeID != c.Caller:
		return callerCertificateMismatch
	case trust.IsRevoked(certificate.fingerprint) || !trust.HasAuthority(certificate.authority):
		return callerCertificateRevoked
	case c.Time.After(certificate.expires.Add(credential.CertificateSkew)):
		return callerCertificateExpired
	}
	return allowed
}

const (
	// maxCertificates bounds those that are remembered, and maxCertificateBytes
	// what they hold.
	maxCertificates     = 4096
	maxCertificateBytes = 16 << 20
	// certificateBytes is what one holds beside its texts.
	certificateBytes = 256
)

// certificate is what counts of a caller's.
type certificate struct {
	spiffeID    string
	authority   string
	fingerprint [sha256.Size]byte
	expires     time.Time
}

// Size implements measured.
func (c *certificate) Size() int { return len(c.spiffeID) + len(c.authority) + certificateBytes }

// measured knows about how many bytes it holds.
type measured interface{ Size() int }

// certificates remembers those of open connections, since each of their
// requests shows it again. Reading takes no lock. Only whom Envoy let in gets
// here, so nobody can push out those in use to any gain.
type certificates[C measured] struct {
	read  func(text string) (C, error)
	known sync.Map // of C, by Envoy's text
	count atomic.Int32
	bytes atomic.Int64
}

func (cs *certificates[C]) parse(text string) (C, error) {
	if known, ok := cs.known.Load(text); ok {
		return known.(C), nil
	}
	parsed, err := cs.read(text)
	if err != nil {
		return parsed, err
	}
	size := int64(len(text) + parsed.Size())
	if cs.count.Add(1) > maxCertificates || cs.bytes.Add(size) > maxCertificateBytes {
		cs.known.Clear()
		cs.count.Store(1)
		cs.bytes.Store(size)
	}
	cs.known.Store(strings.Clone(text), parsed) // and not the request around it
	return parsed, nil
}

// parseCertificate reads the certificate of a caller as Envoy writes it.
func parseCertificate(text string) (*certificate, error) {
	c, err := credential.DecodeCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("caller's certificate: %w", err)
	}
	if len(c.URIs) != 1 {
		return nil, errors.New("caller's certificate does not have exactly one URI")
	}
	return &certificate{
		spiffeID: c.URIs[0].String(), authority: hex.EncodeToString(c.AuthorityKeyId),
		fingerprint: sha256.Sum256(c.Raw), expires: c.NotAfter,
	}, nil
}
