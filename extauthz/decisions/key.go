package decisions

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// keySize is that of a key, in bytes.
const keySize = 32

// ReadKey reads the key that records are hashed with from a file that its owner
// alone can read, and makes one if there is none. Who is given the same file has
// the same hashes.
func ReadKey(path string) ([]byte, error) {
	key, err := identity.ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = NewKey()
		return key, atomicfile.Write(path, key, 0o600)
	}
	if err == nil && len(key) < keySize {
		err = fmt.Errorf("%s has %d bytes, and must have %d: remove it for a new one", path, len(key), keySize)
	}
	return key, err
}

// NewKey makes a key that nobody else has.
func NewKey() []byte {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // it never fails
	return key
}
