package model_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// key signs tokens or Passports. Keys are the same in every run.
type key struct {
	id, algorithm string
	private       crypto.Signer
}

func es256(id string, seed byte) *key {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytesOf(seed, 32))
	if err != nil {
		panic(err)
	}
	return &key{id, "ES256", private}
}

func ed25519Key(id string, seed byte) *key {
	return &key{id, "EdDSA", ed25519.NewKeyFromSeed(bytesOf(seed, ed25519.SeedSize))}
}

func bytesOf(b byte, n int) []byte {
	list := make([]byte, n)
	for i := range list {
		list[i] = b
	}
	return list
}

var encode = base64.RawURLEncoding.EncodeToString

// jwk is the public half.
func (k *key) jwk() map[string]any {
	jwk := map[string]any{"use": "sig", "kid": k.id, "alg": k.algorithm}
	switch public := k.private.Public().(type) {
	case ed25519.PublicKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", encode(public)
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			panic(err)
		}
		jwk["kty"], jwk["crv"], jwk["x"], jwk["y"] = "EC", "P-256", encode(point[1:33]), encode(point[33:])
	}
	return jwk
}

// thumbprint is RFC 7638's of an Ed25519 key.
func (k *key) thumbprint() string {
	x := encode(k.private.Public().(ed25519.PublicKey))
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return encode(sum[:])
}

func (k *key) sign(text string) []byte {
	if private, ok := k.private.(*ecdsa.PrivateKey); ok {
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
		if err != nil {
			panic(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	signature, err := k.private.Sign(nil, []byte(text), crypto.Hash(0))
	if err != nil {
		panic(err)
	}
	return signature
}

// The keys: k1 to k3 are of identity providers, evil is nobody's.
var (
	k1, k2, k3  = es256("k1", 1), ed25519Key("k2", 2), es256("k3", 3)
	evil        = es256("k1", 4)
	publicKey   = ed25519Key("", 5) // of gateway public
	partnerKey  = ed25519Key("", 6) // of gateway partner
	strangerKey = ed25519Key("", 7) // of no gateway
)

// damage is done to what is signed already.
type damage int

const (
	undamaged damage = iota
	badSignature
	notAToken
)

// token is a JWT before it is one; or, where the provider's are opaque, what
// the provider answers about it.
type token struct {
	// typ and kid of the header; empty has none.
	typ, kid string
	signer   *key
	damage   damage
	claims   claims
	// unknown to the provider, or nobody answers.
	inactive, unanswered bool
}

type claims map[string]any

// tokens that were signed already, by what they were made of: signing costs more
// than all the rest.
var tokens sync.Map

func (t *token) text() string {
	header, payload := form{"alg": t.signer.algorithm}.set("typ", t.typ).set("kid", t.kid), t.claims
	return signed(header, payload, t.signer, t.damage)
}

func signed(header form, payload any, by *key, d damage) string {
	h, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	p, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	id := fmt.Sprintf("%s%s%d%p", h, p, d, by)
	if known, ok := tokens.Load(id); ok {
		return known.(string)
	}
	text := encode(h) + "." + encode(p)
	signature := by.sign(text)
	switch d {
	case badSignature:
		signature[10] ^= 1
	case notAToken:
		text = strings.Replace(text, ".", "", 1)
	}
	text += "." + encode(signature)
	tokens.Store(id, text)
	return text
}

// statement is a Passport before it is one.
type statement struct {
	signer              *key
	typ                 string
	damage              damage
	audience, by        string // aud, req_wl
	subject             string
	issued, expires     int64
	provider, tenant    string
	groups              []string
	client, ip, authn   string
	scopes, amr         []string
	acr                 string
	authTime            int64
	bound               map[string]string
	credentialIDs       []string
	credentialSubject   string
	credentialIssuedAt  int64
	anotherMemberInHead bool
}

func (s *statement) text() string {
	header := form{"alg": "EdDSA", "typ": s.typ, "kid": s.signer.thumbprint()}
	if s.anotherMemberInHead {
		header["x"] = "y"
	}
	tctx := form{}.set("idp", s.provider).set("tenant", s.tenant).set("groups", s.groups).set("client", s.client)
	if s.bound != nil {
		tctx["bound"] = s.bound
	}
	rctx := form{}.set("req_ip", s.ip).set("authn", s.authn).set("acr", s.acr).set("amr", s.amr).set("auth_time", int(s.authTime)).
		set("cred_jti", s.credentialIDs).set("cred_sub", s.credentialSubject).set("cred_iat", int(s.credentialIssuedAt))
	return signed(header, form{
		"iat": s.issued, "exp": s.expires, "aud": s.audience, "txn": "call", "sub": s.subject, "scope": strings.Join(s.scopes, " "),
		"req_wl": s.by, "tctx": tctx, "rctx": rctx,
	}, s.signer, s.damage)
}

// certificate is of a client or a caller.
type certificate struct {
	uris, dns, emails []string
	// subject is as documents have it: "CN=till,O=Partner".
	commonName, organization string
	begins, ends             time.Time
	authority                string
	garbage                  bool
}

func (c *certificate) subject() string { return "CN=" + c.commonName + ",O=" + c.organization }

var (
	longAgo  = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	longTime = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)
)

// authority is the key id of who signs the callers' certificates.
const authority = "c0ffee"

func newCertificate(uris ...string) certificate {
	return certificate{uris: uris, commonName: "till", organization: "Partner", begins: longAgo, ends: longTime, authority: authority}
}

var (
	certificates sync.Map
	certifier    = ed25519Key("", 8)
)

// der returns the certificate, which is made once.
func (c *certificate) der() []byte {
	id := fmt.Sprintf("%+v", *c)
	if known, ok := certificates.Load(id); ok {
		return known.([]byte)
	}
	keyID, err := hex.DecodeString(c.authority)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: c.begins, NotAfter: c.ends, AuthorityKeyId: keyID,
		DNSNames: c.dns, EmailAddresses: c.emails,
		Subject: pkix.Name{CommonName: c.commonName, Organization: []string{c.organization}},
	}
	for _, uri := range c.uris {
		u, err := url.Parse(uri)
		if err != nil {
			panic(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, certifier.private.Public(), certifier.private)
	if err != nil {
		panic(err)
	}
	known, _ := certificates.LoadOrStore(id, der)
	return known.([]byte)
}

// text is as Envoy writes it.
func (c *certificate) text() string {
	if c.garbage {
		return "garbage"
	}
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.der()})))
}

func (c *certificate) fingerprint() [sha256.Size]byte { return sha256.Sum256(c.der()) }

// thumbprint is what tokens are bound to.
func (c *certificate) thumbprint() string {
	sum := c.fingerprint()
	return encode(sum[:])
}

// keyText is the API key with an id, and hashOf what documents have of it.
func keyText(id string) string { return "chk_" + id + "_" + strings.Repeat("s", 32) + "_000000" }

func hashOf(id string) string {
	sum := sha256.Sum256([]byte(keyText(id)))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// passwordOf is the password of each user; passwordHashes are made once.
func passwordOf(user string) string { return "password of " + user }

var passwordHashes = func() map[string]string {
	hashes := map[string]string{}
	for _, name := range userNames {
		hash, err := bcrypt.GenerateFromPassword([]byte(passwordOf(name)), 10)
		if err != nil {
			panic(err)
		}
		hashes[name] = string(hash)
	}
	return hashes
}()

var userNames = []string{"alice", "bob", "till-7"}

// atHash is what OpenID Connect has an ID token of an algorithm say of the access
// token that it came with.
func atHash(algorithm, accessToken string) string {
	if algorithm == "EdDSA" {
		sum := sha512.Sum512([]byte(accessToken))
		return encode(sum[:32])
	}
	sum := sha256.Sum256([]byte(accessToken))
	return encode(sum[:16])
}

// verifies is for Ed25519 keys.
func (k *key) verifies(text string, signature []byte) bool {
	return ed25519.Verify(k.private.Public().(ed25519.PublicKey), []byte(text), signature)
}
