package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/chancery-mesh/chancery/passport"
)

const (
	issuer    = "https://idp.shop.example/realms/staff"
	audience  = "shop-api"
	domain    = "shop.example"
	provider  = "staff"
	gatewayID = "spiffe://shop.example/gateway/public"
	// worldFile is where the keys are, in the directory of the run.
	worldFile = "world.json"
)

// authority signs, as far as its name goes, the certificates of callers.
var authority = []byte("bench")

// world is what all processes of a run share: keys that are made for it.
type world struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	// key is the gateway's for Passports, signer signs with it.
	key    ed25519.PrivateKey
	signer *passport.Signer
	// certificate is the caller's, as Envoy writes it.
	certificate string
}

// keys is how a world is written.
type keys struct {
	RSA, EC, Signer []byte
	Certificate     string
}

// newWorld makes keys and writes them to path.
func newWorld(path string) (*world, error) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate, err := newCertificate(ecKey)
	if err != nil {
		return nil, err
	}
	k := keys{Certificate: certificate}
	var errs [4]error
	k.RSA, errs[0] = x509.MarshalPKCS8PrivateKey(rsaKey)
	k.EC, errs[1] = x509.MarshalPKCS8PrivateKey(ecKey)
	k.Signer, errs[2] = x509.MarshalPKCS8PrivateKey(signer)
	data, err := json.Marshal(k)
	errs[3] = err
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return nil, err
	}
	return readWorld(path)
}

func readWorld(path string) (*world, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var k keys
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, err
	}
	w := &world{certificate: k.Certificate}
	if err := errors.Join(parse(k.RSA, &w.rsa), parse(k.EC, &w.ec), parse(k.Signer, &w.key)); err != nil {
		return nil, err
	}
	w.signer, err = passport.NewSigner(w.key)
	return w, err
}

func parse[T any](der []byte, to *T) error {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	var ok bool
	if *to, ok = key.(T); !ok {
		return fmt.Errorf("key is a %T", key)
	}
	return nil
}

// newCertificate returns a certificate of a gateway, as an X509-SVID is.
func newCertificate(key *ecdsa.PrivateKey) (string, error) {
	id, err := url.Parse(gatewayID)
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{id}, AuthorityKeyId: authority,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), nil
}

// jwks returns the identity provider's public keys.
func (w *world) jwks() ([]byte, error) {
	var set jwkset.JWKSMarshal
	for id, key := range map[string]any{"rsa": &w.rsa.PublicKey, "ec": &w.ec.PublicKey} {
		jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id}})
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	return json.Marshal(set)
}

// passportKeys returns the gateway's public key for Passports.
func (w *world) passportKeys() passport.KeySet {
	return passport.KeySet{w.signer.KeyID(): {
		Owner: gatewayID, Public: w.signer.Public(), Until: time.Now().Add(24 * time.Hour), Providers: []string{provider},
	}}
}

// authorityID is how certificates name their authority.
func authorityID() string { return hex.EncodeToString(authority) }
