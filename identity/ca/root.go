package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"
)

// root is the certificate above authorities.
type root struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// makeRoot makes a self-signed root.
func makeRoot(trustDomain string, now time.Time, lifetime time.Duration) (*root, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := authorityTemplate("root", trustDomain, key.Public())
	if err != nil {
		return nil, err
	}
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(lifetime)
	template.MaxPathLen = 1
	cert, err := create(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign root of %q: %w", trustDomain, err)
	}
	return &root{cert: cert, key: key}, nil
}

// newAuthority makes the next authority of a state, or takes the one that was
// supplied, and sees that it works.
func (ca *CA) newAuthority(next *state, newRoot bool) (*issuer, error) {
	ca.mu.RLock()
	lifetimes := ca.lifetimes
	ca.mu.RUnlock()
	now := ca.cfg.Now()
	source := ca.ownAuthority
	if ca.cfg.Supplied != nil {
		source = ca.suppliedAuthority
	}
	i, err := source(next, newRoot, now, lifetimes)
	if err != nil {
		return nil, err
	}
	return i, i.probe(ca.cfg.TrustDomain, now)
}

// ownAuthority makes an authority. A root is made where there is none, when
// newRoot asks, or when the last would end before the authority does.
func (ca *CA) ownAuthority(next *state, newRoot bool, now time.Time, lifetimes Lifetimes) (*issuer, error) {
	r := next.root
	if newRoot || r == nil || r.cert.NotAfter.Before(now.Add(lifetimes.Authority)) {
		var err error
		if r, err = makeRoot(ca.cfg.TrustDomain, now, lifetimes.Root); err != nil {
			return nil, err
		}
	}
	next.root = r
	return makeAuthority(r, ca.cfg.TrustDomain, now, lifetimes.Authority)
}
