package identity

import (
	"fmt"
	"os"
	"slices"
	"syscall"
)

// PrivateDir makes dir, and its parents, if need be, and returns an error
// unless it is a directory of this process's user that nobody else can enter.
func PrivateDir(dir string) error { return privateDir(dir, uint32(os.Geteuid())) }

func privateDir(dir string, owners ...uint32) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s must be a directory with mode 0700, not %v", dir, info.Mode())
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !slices.Contains(owners, stat.Uid) {
		return fmt.Errorf("%s belongs to another user", dir)
	}
	return nil
}

// ReadPrivate reads a regular file, not a link to one, that its owner alone can
// read.
func ReadPrivate(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s must be a file with mode 0600, not %v", path, info.Mode())
	}
	return os.ReadFile(path)
}
