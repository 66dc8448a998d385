package ca

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// lockFile is locked while a process has the CA open.
const lockFile = "lock"

// disk is what the CA asks of the file system; tests fail it.
type disk interface {
	// write replaces a file, whole or not at all, and on disk.
	write(path string, data []byte) error
	// openAppend opens a file, which is made if need be, to write after its
	// first size bytes.
	openAppend(path string, size int64) (appendFile, error)
}

type appendFile interface {
	Write(data []byte) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

type osDisk struct{}

func (osDisk) write(path string, data []byte) error { return atomicfile.Write(path, data, 0o600) }

func (osDisk) openAppend(path string, size int64) (appendFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Sync(), syncDir(filepath.Dir(path))); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// lockDir takes the lock of a directory, or says that another process has it.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: another control plane uses it: stop that one first: %w", dir, err), lock.Close())
	}
	return lock, nil
}
