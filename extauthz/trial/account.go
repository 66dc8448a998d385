package trial

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"time"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// accounts are those of the documents, with keys and passwords that are made up.
type accounts struct {
	all []*chancerypb.Accounts
	// keys by the ID of their document; password is everybody's.
	keys     map[string]string
	password string
}

func newAccounts(m *mesh.Mesh) (*accounts, error) {
	a := &accounts{keys: map[string]string{}, password: rand.Text()}
	hash, err := credential.HashPassword(a.password)
	if err != nil {
		return nil, err
	}
	for _, part := range translate.Accounts(m) {
		for _, k := range part.GetApiKeys().GetApiKeys() {
			a.keys[k.GetId()] = credential.GenerateAPIKeyOf(k.GetId())
			k.Hash = credential.HashAPIKey(a.keys[k.GetId()])
		}
		for _, u := range part.GetUsers().GetUsers() {
			u.Password = hash
		}
		a.all = append(a.all, part)
	}
	return a, nil
}

// basic returns what a user logs in with, empty for nobody.
func (a *accounts) basic(user string) string {
	if user == "" {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + a.password))
}

// newCertificate makes a client's certificate in PEM, that Envoy is taken to have
// verified.
func newCertificate(names []string, subject string, now time.Time) (string, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
	}
	if err := credential.NameCertificate(template, names, subject); err != nil {
		return "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), err
}
