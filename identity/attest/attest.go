// Package attest is how an agent that has no certificate yet proves who it is:
// by a join token that an operator made for it ([Tokens]), or by writing into
// the registration of its own service in Consul ([Consul], [Prove]). Both bind
// the proof to the key of the certificate that is asked for, so that nobody
// else can use it up.
//
// A proof that fails is recorded with its reason in the audit log; who failed
// hears what to do, and nothing that would help to guess.
//
// The package issues no certificates and knows no connections.
package attest

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"

	"github.com/chancery-mesh/chancery/identity"
)

// fingerprint returns what stands for a public key, which must be of a kind
// that certificates are signed for.
func fingerprint(key crypto.PublicKey) ([sha256.Size]byte, error) {
	if err := identity.CheckKey(key); err != nil {
		return [sha256.Size]byte{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("public key: %w", err)
	}
	return sha256.Sum256(spki), nil
}
