package identity_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/identity"
)

// Row S09: only the key is taken, and only from who has it.
func TestPublicKey(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	request := func(signer crypto.Signer, template x509.CertificateRequest) []byte {
		csr, err := x509.CreateCertificateRequest(rand.Reader, &template, signer)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	on := func(curve elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	rsaKey := func(bits int) crypto.Signer {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	bytesOf := func(key *ecdsa.PrivateKey) []byte {
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return point
	}
	plain := request(key, x509.CertificateRequest{})
	forged := bytes.Clone(plain)
	forged[len(forged)-1] ^= 1
	anothers := bytes.Replace(plain, bytesOf(key), bytesOf(newKey(t)), 1)
	authority := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}
	theirs := x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "gateway"}, DNSNames: []string{"evil"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "shop.example", Path: "/gateway/public"}},
	}
	tests := map[string]struct {
		csr []byte
		ok  bool
	}{
		"plain":               {plain, true},
		"names are ignored":   {request(key, theirs), true},
		"so is CA:true":       {request(key, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{authority}}), true},
		"wrong signature":     {forged, false},
		"another's key":       {anothers, false},
		"RSA of 1024 bits":    {request(rsaKey(1024), x509.CertificateRequest{}), false},
		"RSA":                 {request(rsaKey(2048), x509.CertificateRequest{}), false},
		"a weak curve":        {request(on(elliptic.P224()), x509.CertificateRequest{}), false},
		"another curve":       {request(on(elliptic.P521()), x509.CertificateRequest{}), false},
		"nothing":             {nil, false},
		"garbage":             {[]byte("-----BEGIN"), false},
		"trailing data":       {append(bytes.Clone(plain), 0), false},
		"more than is parsed": {request(key, x509.CertificateRequest{DNSNames: []string{strings.Repeat("a", 9000)}}), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pub, err := identity.PublicKey(tt.csr)
			if (err == nil) != tt.ok {
				t.Fatalf("PublicKey: %v", err)
			}
			if tt.ok && !key.PublicKey.Equal(pub) {
				t.Error("another key")
			}
		})
	}
}
