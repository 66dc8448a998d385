package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxPins bounds how many roots are pinned; a trust domain has two while one
// follows the other.
const maxPins = 16

// Pins name the roots that an agent without [Trust] believes: by their SHA-256,
// so that they fit a join token. The zero value believes nobody.
type Pins struct {
	roots [][sha256.Size]byte
}

// ParsePins is the inverse of [Pins.String].
func ParsePins(s string) (Pins, error) {
	var p Pins
	for text := range strings.SplitSeq(s, ".") {
		sum, err := hex.DecodeString(text)
		if err != nil || len(sum) != sha256.Size {
			return Pins{}, errors.New("pin is not the SHA-256 of a root certificate in hex")
		}
		p.roots = append(p.roots, [sha256.Size]byte(sum))
	}
	return p, p.check()
}

// PinsOfBundle returns pins of the roots in a PEM file's content.
func PinsOfBundle(data []byte) (Pins, error) {
	var p Pins
	for block, rest := pem.Decode(data); ; block, rest = pem.Decode(rest) {
		if block == nil {
			if len(bytes.TrimSpace(rest)) != 0 {
				return Pins{}, errors.New("trust bundle: there is something else than PEM in it")
			}
			return p, p.check()
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" || !cert.IsCA {
			return Pins{}, fmt.Errorf("trust bundle: number %d is not the certificate of an authority", len(p.roots)+1)
		}
		p.roots = append(p.roots, sha256.Sum256(cert.Raw))
	}
}

// PinsOfRoots returns pins of DER certificates, as [Trust] has them.
func PinsOfRoots(ders [][]byte) Pins {
	var p Pins
	for _, der := range ders {
		p.roots = append(p.roots, sha256.Sum256(der))
	}
	return p
}

func (p Pins) check() error {
	if len(p.roots) == 0 || len(p.roots) > maxPins {
		return fmt.Errorf("%d root certificates are pinned, not 1 to %d", len(p.roots), maxPins)
	}
	return nil
}

// Contains reports whether p names a root.
func (p Pins) Contains(root *x509.Certificate) bool {
	return slices.Contains(p.roots, sha256.Sum256(root.Raw))
}

// IsZero reports whether p believes nobody.
func (p Pins) IsZero() bool { return len(p.roots) == 0 }

// String returns the sums in hex with dots between them.
func (p Pins) String() string {
	sums := make([]string, len(p.roots))
	for i, r := range p.roots {
		sums[i] = hex.EncodeToString(r[:])
	}
	return strings.Join(sums, ".")
}

// verify returns whom a chain stands for that brings a pinned root along.
func (p Pins) verify(chain []*x509.Certificate, now time.Time) (ID, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return ID{}, fmt.Errorf("chain has %d certificates, not 1 to %d", len(chain), maxChain)
	}
	var roots []*x509.Certificate
	for _, c := range chain[1:] {
		if p.Contains(c) {
			roots = append(roots, c)
		}
	}
	if len(roots) == 0 {
		return ID{}, errors.New("none of its roots is pinned by the join token or the trust bundle")
	}
	domain, err := trustDomainOf(chain[0])
	if err != nil {
		return ID{}, err
	}
	paths, err := findPaths(chain, roots, now)
	if err != nil {
		return ID{}, err
	}
	for _, c := range paths[0][1:] {
		if err := checkAuthority(c, domain); err != nil {
			return ID{}, err
		}
	}
	return nameOf(chain[0], domain)
}
