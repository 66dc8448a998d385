package ca

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/scrypt"

	"github.com/chancery-mesh/chancery/identity"
)

const (
	// scryptLogN costs 128 MiB and about half a second, once for each start
	// (OWASP's first choice for scrypt).
	scryptLogN    = 17
	maxScryptLogN = 20
	minSecret     = 8
	// sealedAs binds what was sealed to what it is.
	sealedAs = "chancery certificate authority state v1"
)

// KeyProtection is the passphrase, or the content of the key file, that
// encrypts the state file. Empty: it is kept in the clear, with mode 0600.
type KeyProtection []byte

// ReadKeyProtection reads a passphrase or key from a file that its owner alone
// can read. White space around it does not count.
func ReadKeyProtection(path string) (KeyProtection, error) {
	data, err := identity.ReadPrivate(path)
	if err != nil {
		return nil, err
	}
	secret := bytes.TrimSpace(data)
	if len(secret) < minSecret {
		return nil, fmt.Errorf("%s has %d bytes: at least %d are needed", path, len(secret), minSecret)
	}
	return secret, nil
}

// String keeps the secret out of logs.
func (KeyProtection) String() string { return "[redacted]" }

// GoString keeps the secret out of logs.
func (KeyProtection) GoString() string { return "[redacted]" }

// ErrSealed says that the state file was encrypted with another secret. To find
// that out costs as much as to open it.
var ErrSealed = errors.New("it does not decrypt: the passphrase or key file is another one, or the file was changed")

// sealedRecord is the state file when it is encrypted.
type sealedRecord struct {
	// Salt and LogN are scrypt's; its r is 8, its p is 1.
	Salt []byte `json:"scrypt_salt,omitempty"`
	LogN int    `json:"scrypt_log_n,omitempty"`
	// Sealed is AES-256-GCM: nonce, ciphertext, tag.
	Sealed []byte `json:"aes_256_gcm,omitempty"`
}

// sealer encrypts with a key that is derived once.
type sealer struct {
	salt []byte
	logN int
	aead cipher.AEAD
}

func newSealer(secret KeyProtection, logN int) (*sealer, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return deriveSealer(secret, salt, logN)
}

func deriveSealer(secret KeyProtection, salt []byte, logN int) (*sealer, error) {
	if len(secret) < minSecret {
		return nil, fmt.Errorf("passphrase or key file has %d bytes: at least %d are needed", len(secret), minSecret)
	}
	key, err := scrypt.Key(secret, salt, 1<<logN, 8, 1, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &sealer{salt: salt, logN: logN, aead: aead}, err
}

// sealerOf returns the sealer that a record was sealed with.
func sealerOf(secret KeyProtection, rec sealedRecord) (*sealer, error) {
	if rec.LogN < 1 || rec.LogN > maxScryptLogN {
		return nil, fmt.Errorf("scrypt_log_n is %d: at most %d is accepted", rec.LogN, maxScryptLogN)
	}
	return deriveSealer(secret, rec.Salt, rec.LogN)
}

func (s *sealer) close(plain []byte) sealedRecord {
	sealed := s.aead.Seal(nil, nil, plain, []byte(sealedAs)) //nolint:gosec // it takes none: the nonce is random, made inside
	return sealedRecord{Salt: s.salt, LogN: s.logN, Sealed: sealed}
}

func (s *sealer) open(rec sealedRecord) ([]byte, error) {
	plain, err := s.aead.Open(nil, nil, rec.Sealed, []byte(sealedAs))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}
