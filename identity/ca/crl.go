package ca

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"maps"
	"math/big"
	"time"
)

// forever is the end of all revocation lists (RFC 5280, 4.1.2.5): one that
// ended while nobody could renew it would be an outage.
var forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// crl returns the authority's revocation list: last, if it says the same.
func (ca *CA) crl(i *issuer, revoked []Certificate, last []byte, number uint64) ([]byte, error) {
	wanted := map[string]Certificate{}
	for _, c := range revoked {
		if c.Authority == i.ID {
			wanted[c.Serial] = c
		}
	}
	if lists(last, i, wanted) {
		return last, nil
	}
	list := &x509.RevocationList{
		Number: new(big.Int).SetUint64(number),
		// As old as its authority: whoever takes that takes this, also with a
		// clock that is behind.
		ThisUpdate: i.cert.NotBefore,
		NextUpdate: forever,
	}
	for _, c := range revoked {
		if c.Authority != i.ID {
			continue
		}
		serial, ok := new(big.Int).SetString(c.Serial, 16)
		if !ok {
			return nil, fmt.Errorf("serial %q is not a number", c.Serial)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: c.Revoked})
	}
	der, err := i.signCRL(list)
	if err != nil {
		return nil, fmt.Errorf("sign revocation list of authority %s: %w", i.ID, err)
	}
	return der, nil
}

func (i *issuer) signCRL(list *x509.RevocationList) ([]byte, error) {
	list.SignatureAlgorithm = signatureAlgorithm
	return x509.CreateRevocationList(rand.Reader, list, i.cert, i.key)
}

// lists reports whether a list is the authority's and has exactly the wanted
// serials.
func lists(der []byte, i *issuer, wanted map[string]Certificate) bool {
	list, err := x509.ParseRevocationList(der)
	if err != nil || list.CheckSignatureFrom(i.cert) != nil {
		return false
	}
	got := map[string]Certificate{}
	for _, e := range list.RevokedCertificateEntries {
		serial := e.SerialNumber.Text(16)
		got[serial] = wanted[serial]
	}
	return maps.EqualFunc(got, wanted, func(a, b Certificate) bool { return a.Serial == b.Serial })
}
