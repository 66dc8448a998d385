package identity

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// PrivateDir makes dir, and its parents, if need be, and returns an error
// unless it is a directory of this process's user that nobody else can enter.
func PrivateDir(dir string) error {
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
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s belongs to another user", dir)
	}
	return nil
}

// ReadPrivate reads a regular file, not a link to one, that its owner alone can
// read: it holds a secret, or vouches for something.
func ReadPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) // a pipe does not make it wait
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s must be a file with mode 0600, not a link to one: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s must be a file with mode 0600, not %v", path, info.Mode())
	}
	return io.ReadAll(f)
}
