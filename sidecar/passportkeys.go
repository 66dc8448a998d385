package sidecar

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/chancery-mesh/chancery/passport"
)

// passportKeyFile is written once the key in it was endorsed.
const passportKeyFile = "passport.key"

// passportKeys are what a gateway signs Passports with. They are made here and
// never leave.
type passportKeys struct {
	path string
	// next is offered to the control plane, and not endorsed yet.
	next ed25519.PrivateKey
	// current is nil until the control plane has endorsed a key.
	current atomic.Pointer[passport.Signer]
}

// load takes over what an earlier agent left.
func (k *passportKeys) load() error {
	key, err := loadKey[ed25519.PrivateKey](k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	signer, err := passport.NewSigner(key)
	if err != nil {
		return fmt.Errorf("passport key: %w", err)
	}
	k.current.Store(signer)
	return nil
}

// offer returns the public keys to be endorsed.
func (k *passportKeys) offer() ([][]byte, error) {
	if signer := k.current.Load(); signer != nil {
		jwk, err := passport.EncodeKey(signer.Public())
		return [][]byte{jwk}, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make passport key: %w", err)
	}
	k.next = key
	jwk, err := passport.EncodeKey(key.Public())
	return [][]byte{jwk}, err
}

// endorsed says that what was offered last was endorsed until then.
func (k *passportKeys) endorsed(time.Time) error {
	if k.next == nil {
		return nil
	}
	if err := saveKey(k.path, k.next); err != nil {
		return err
	}
	k.next = nil
	return k.load()
}

// signer returns what to sign with now, nil for nothing.
func (k *passportKeys) signer() *passport.Signer {
	if k == nil {
		return nil
	}
	return k.current.Load()
}
