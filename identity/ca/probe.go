package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// probe has an authority sign a certificate and a revocation list that nobody
// gets, and verifies them as a peer would. So a key that is another's, a path
// length, a name constraint or a usage that forbids what authorities are for
// shows before anybody depends on it.
func (i *issuer) probe(trustDomain string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf, err := i.signLeaf(leafRequest{
		spiffeID: identity.ID{Role: identity.RoleService, Name: "probe"}.SPIFFE(trustDomain),
		key:      key.Public(), begin: now.Add(-backdate), end: now.Add(time.Second),
	})
	if err != nil {
		return fmt.Errorf("authority %s signs no certificate: %w", i.ID, err)
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now}
	opts.Roots.AddCert(i.root)
	opts.Intermediates.AddCert(i.cert)
	for _, usage := range leaf.ExtKeyUsage {
		opts.KeyUsages = []x509.ExtKeyUsage{usage}
		if _, err := leaf.Verify(opts); err != nil {
			return fmt.Errorf("what authority %s signs does not verify: %w", i.ID, err)
		}
	}
	der, err := i.signCRL(&x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: forever})
	if err != nil {
		return fmt.Errorf("authority %s signs no revocation list: %w", i.ID, err)
	}
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		err = list.CheckSignatureFrom(i.cert)
	}
	if err != nil {
		return fmt.Errorf("the revocation list of authority %s does not verify: %w", i.ID, err)
	}
	return nil
}
