package credential

import (
	"errors"
	"fmt"

	"github.com/chancery-mesh/chancery/internal/jose"
)

// KeySet holds the keys that an identity provider signs with.
type KeySet struct{ keys []jose.Key }

// ParseKeySet reads the JWK Set of an identity provider. Keys that cannot or
// should not verify tokens (for encryption, symmetric, weak, with their private
// half, of an unknown kind) are left out, and so are keys that share a `kid`:
// refused says which and why. A set without any other key is an error.
func ParseKeySet(jwks []byte) (set *KeySet, refused []error, err error) {
	members, err := jose.ParseSet(jwks)
	if err != nil {
		return nil, nil, fmt.Errorf("parse JWK set: %w", err)
	}
	refuse := func(i int, err error) { refused = append(refused, fmt.Errorf("keys[%d]: %w", i, err)) }
	parsed := make(map[int]jose.Key)
	owners := make(map[string]int)
	for i, m := range members {
		key, err := jose.ParseKey(m)
		if err != nil {
			refuse(i, err)
			continue
		}
		parsed[i] = key
		owners[key.ID]++
	}
	set = &KeySet{}
	for i := range members {
		key, ok := parsed[i]
		switch {
		case !ok:
		case key.ID != "" && owners[key.ID] > 1:
			refuse(i, fmt.Errorf("kid %.64q stands twice", key.ID))
		default:
			set.keys = append(set.keys, key)
		}
	}
	if len(set.keys) == 0 {
		return nil, refused, fmt.Errorf("parse JWK set: no usable key: %w", errors.Join(refused...))
	}
	return set, refused, nil
}

// find returns the one key that t can be meant for. Without a `kid` there must
// be no other key of its algorithm, so at most one signature is ever tried.
func (s *KeySet) find(t *jose.Token) (jose.Key, error) {
	id, named, err := t.Header.String("kid")
	if err != nil {
		return jose.Key{}, Malformed
	}
	var found jose.Key
	for _, key := range s.keys {
		switch {
		case named && (key.ID != id || id == ""), !named && key.Algorithm != t.Algorithm():
		case found.Public != nil:
			return jose.Key{}, UnknownKey
		default:
			found = key
		}
	}
	if found.Public == nil {
		return jose.Key{}, UnknownKey
	}
	return found, nil
}
