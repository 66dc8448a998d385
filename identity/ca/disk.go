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
	// openAppend opens a file, which is made if size is 0, to write after its
	// first size bytes; what follows them is cut off.
	openAppend(path string, size int64) (appendFile, error)
}

type appendFile interface {
	Write(data []byte) (int, error)
	Sync() error
	Close() error
}

type osDisk struct{}

func (osDisk) write(path string, data []byte) error { return atomicfile.Write(path, data, 0o600) }

func (osDisk) openAppend(path string, size int64) (appendFile, error) {
	flags := os.O_WRONLY | os.O_APPEND
	if size == 0 {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(cut(f, size), f.Sync(), syncDir(filepath.Dir(path))); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// cut shortens a file, and never makes it longer.
func cut(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < size {
		return fmt.Errorf("%s has %d bytes, but %d were written: somebody else changed it: restore it", f.Name(), info.Size(), size)
	}
	return f.Truncate(size)
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

// unlock does not leave it to Close: a process that is being forked at this
// moment has the file open as well.
func unlock(lock *os.File) error {
	return errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_UN), lock.Close())
}
