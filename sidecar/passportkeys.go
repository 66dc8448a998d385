package sidecar

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/passport"
)

const (
	// passportKeyFile has all of a gateway's keys, the oldest first.
	passportKeyFile = "passport.key"
	// passportKeyBlock is a key's in it, PKCS #8 in PEM, and the headers say how
	// far it has come.
	passportKeyBlock = "PRIVATE KEY"
	untilHeader      = "Endorsed-Until"
	readyHeader      = "Ready"
)

// unreadyTime is how long a gateway that could not sign at all waits for all
// PDPs to have its key. One that does not answer must not keep it from serving.
const unreadyTime = 10 * time.Second

// passportKeys are what a gateway signs Passports with. They are made here and
// never leave. Each goes through the same life: it is made and on disk; offered,
// with the request for a certificate, and endorsed for as long as that; ready,
// when the control plane says that every PDP has it; signing, until a later one
// is ready. It is safe for concurrent use.
type passportKeys struct {
	path string
	log  *slog.Logger

	mu sync.Mutex
	// keys are those that are of use yet, the oldest first, and offered those of
	// them that the control plane was asked to endorse.
	keys, offered []*passportKey
	// ready are the ids of the keys that every PDP has.
	ready []string
	// signing is what to sign with.
	signing atomic.Pointer[signing]
}

// passportKey is one of them.
type passportKey struct {
	private ed25519.PrivateKey
	signer  *passport.Signer
	// until is when its endorsement ends; zero as long as it has none.
	until time.Time
	ready bool
}

// signing is a key for some time.
type signing struct {
	signer      *passport.Signer
	from, until time.Time
}

func newPassportKey(private ed25519.PrivateKey) (*passportKey, error) {
	signer, err := passport.NewSigner(private)
	if err != nil {
		return nil, fmt.Errorf("passport key: %w", err)
	}
	return &passportKey{private: private, signer: signer}, nil
}

func (k *passportKey) isEndorsed() bool { return time.Now().Before(k.until) }

// signer returns what to sign with now, nil for nothing. Nil has nothing.
func (pk *passportKeys) signer() *passport.Signer {
	if pk == nil {
		return nil
	}
	s, now := pk.signing.Load(), time.Now()
	if s == nil || now.Before(s.from) || !now.Before(s.until) {
		return nil
	}
	return s.signer
}

// load takes over what an earlier agent left.
func (pk *passportKeys) load() error {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	text, err := identity.ReadPrivate(pk.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if pk.keys, err = parsePassportKeys(text); err != nil {
		return fmt.Errorf("%q is not a file of passport keys: %w", pk.path, err)
	}
	pk.choose()
	return nil
}

// offer returns the public keys that the control plane shall endorse with the
// next certificate: the one that signs, and the next one. An agent that joins
// gets a certificate that has nothing to do with those before, so it offers
// none that may have been endorsed, and perhaps revoked, with one of them.
func (pk *passportKeys) offer(joins bool) (jwks [][]byte, err error) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	next, err := pk.next(joins)
	if err != nil {
		return nil, err
	}
	pk.offered = []*passportKey{next}
	if signing := pk.newest((*passportKey).isSigning); signing != nil && !joins && signing != next {
		pk.offered = append(pk.offered, signing)
	}
	for _, k := range pk.offered {
		jwk, err := passport.EncodeKey(k.signer.Public())
		if err != nil {
			return nil, err
		}
		jwks = append(jwks, jwk)
	}
	return jwks, nil
}

// next returns the key that is to be signed with next, which is made where the
// last one is in use already.
func (pk *passportKeys) next(joins bool) (*passportKey, error) {
	keys := slices.Clone(pk.keys)
	if joins {
		keys = slices.DeleteFunc(keys, func(k *passportKey) bool { return k.until.IsZero() })
	} else if len(keys) > 0 && !keys[len(keys)-1].ready {
		return keys[len(keys)-1], nil
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make passport key: %w", err)
	}
	k, err := newPassportKey(private)
	if err != nil {
		return nil, err
	}
	keys = append(keys, k)
	if err := savePassportKeys(pk.path, keys); err != nil {
		return nil, err
	}
	pk.keys = keys
	return k, nil
}

func (k *passportKey) isSigning() bool { return k.ready && k.isEndorsed() }

// newest returns the newest key that fits, or nil.
func (pk *passportKeys) newest(fits func(*passportKey) bool) *passportKey {
	for _, k := range slices.Backward(pk.keys) {
		if fits(k) {
			return k
		}
	}
	return nil
}

// endorsed says that what was offered last was endorsed until then.
func (pk *passportKeys) endorsed(until time.Time) error {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	for _, k := range pk.offered {
		k.until = until
	}
	pk.offered = nil
	return pk.settle()
}

// readied says which keys every PDP has.
func (pk *passportKeys) readied(ids []string) error {
	if pk == nil {
		return nil
	}
	pk.mu.Lock()
	defer pk.mu.Unlock()
	if slices.Equal(pk.ready, ids) {
		return nil
	}
	pk.ready = ids
	return pk.settle()
}

// settle brings the keys up to what is known of them. The caller holds the lock.
func (pk *passportKeys) settle() error {
	for _, k := range pk.keys {
		if k.isEndorsed() && slices.Contains(pk.ready, k.signer.KeyID()) {
			k.ready = true
		}
	}
	signing := pk.newest((*passportKey).isSigning)
	past := true
	pk.keys = slices.DeleteFunc(pk.keys, func(k *passportKey) bool {
		past = past && signing != nil && k != signing
		return past || !k.until.IsZero() && !k.isEndorsed()
	})
	pk.choose()
	return savePassportKeys(pk.path, pk.keys)
}

// forget makes an end of all keys: they were revoked, or are another's.
func (pk *passportKeys) forget() error {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	pk.keys, pk.offered = nil, nil
	pk.signing.Store(nil)
	return savePassportKeys(pk.path, nil)
}

// choose begins to sign with the newest key that every PDP has; where there is
// none yet, after a while with one that some may lack.
func (pk *passportKeys) choose() {
	from := time.Time{}
	k := pk.newest((*passportKey).isSigning)
	if i := slices.IndexFunc(pk.keys, (*passportKey).isEndorsed); k == nil && i >= 0 {
		k, from = pk.keys[i], time.Now().Add(unreadyTime)
	}
	before := pk.signing.Load()
	switch {
	case k == nil:
		return // what signs now ends by itself
	case before == nil || before.signer.KeyID() != k.signer.KeyID():
		pk.log.Info("passport key chosen", "kid", k.signer.KeyID(), "until", k.until, "ready", k.ready)
	case before.from.Before(from):
		from = before.from
	}
	pk.signing.Store(&signing{signer: k.signer.Until(k.until), from: from, until: k.until})
}

// savePassportKeys writes all keys to the disk.
func savePassportKeys(path string, keys []*passportKey) error {
	var text []byte
	for _, k := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.private)
		if err != nil {
			return fmt.Errorf("encode passport key: %w", err)
		}
		block := &pem.Block{Type: passportKeyBlock, Bytes: der, Headers: map[string]string{}}
		if !k.until.IsZero() {
			block.Headers[untilHeader] = k.until.UTC().Format(time.RFC3339)
		}
		if k.ready {
			block.Headers[readyHeader] = "true"
		}
		text = append(text, pem.EncodeToMemory(block)...)
	}
	return atomicfile.Write(path, text, 0o600)
}

// parsePassportKeys reads what savePassportKeys wrote. An error does not say what: it could
// quote a key.
func parsePassportKeys(text []byte) ([]*passportKey, error) {
	var keys []*passportKey
	for len(text) > 0 {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil || block.Type != passportKeyBlock {
			return nil, errors.New("not PEM")
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		private, ok := parsed.(ed25519.PrivateKey)
		if err != nil || !ok {
			return nil, errors.New("not an Ed25519 key in PKCS #8")
		}
		k, err := newPassportKey(private)
		if err != nil {
			return nil, err
		}
		if until := block.Headers[untilHeader]; until != "" {
			if k.until, err = time.Parse(time.RFC3339, until); err != nil {
				return nil, errors.New("not a date")
			}
		}
		k.ready = block.Headers[readyHeader] == "true"
		keys = append(keys, k)
	}
	return keys, nil
}
