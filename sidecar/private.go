package sidecar

import (
	"fmt"
	"os"
)

// readPrivate reads a file that must be closed to everybody else, since it
// holds a secret or vouches for something.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%q must be a file with mode 0600, not %v", path, info.Mode())
	}
	return os.ReadFile(path)
}
