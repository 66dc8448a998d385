package bundle

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
)

// Key is a public key that bundles may be signed by. The algorithm is the key's,
// not the signature's: RS256, ES256, ES384, ES512 or EdDSA.
type Key struct {
	// ID names it in messages. Which key a signature says it is by decides
	// nothing: each is tried.
	ID        string
	algorithm string
	pem       string
}

// Keys are several, of which one must do: a new one and the one before it.
type Keys []Key

// ReadKeys reads public keys in PEM, one in each file.
func ReadKeys(files []string) (Keys, error) {
	var keys Keys
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read bundle key: %w", err)
		}
		key, err := ParseKey(file, text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// ParseKey reads a public key in PEM.
func ParseKey(id string, text []byte) (Key, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
		return Key{}, fmt.Errorf("bundle key %s: is not one PEM block of type PUBLIC KEY", id)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("bundle key %s: %w", id, err)
	}
	algorithm, err := algorithmOf(public)
	if err != nil {
		return Key{}, fmt.Errorf("bundle key %s: %w", id, err)
	}
	return Key{ID: id, algorithm: algorithm, pem: string(pem.EncodeToMemory(block))}, nil
}

func algorithmOf(public any) (string, error) {
	switch public := public.(type) {
	case *rsa.PublicKey:
		if public.N.BitLen() < 2048 {
			return "", errors.New("an RSA key needs 2048 bits")
		}
		return "RS256", nil
	case *ecdsa.PublicKey:
		curves := []string{"P-256", "P-384", "P-521"}
		if i := slices.Index(curves, public.Params().Name); i >= 0 {
			return []string{"ES256", "ES384", "ES512"}[i], nil
		}
	case ed25519.PublicKey:
		return "EdDSA", nil
	}
	return "", errors.New("is of a kind that signs no bundles")
}

// verification is for OPA: this key, and no other.
func (k Key) verification(scope string) *opabundle.VerificationConfig {
	config := &opabundle.KeyConfig{Key: k.pem, Algorithm: k.algorithm}
	return opabundle.NewVerificationConfig(map[string]*opabundle.KeyConfig{k.ID: config}, k.ID, scope, nil)
}
