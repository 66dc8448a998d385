package audit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// File is a [Sink]: a file, and older ones beside it, path.1 the newest. Others
// cannot read them. It is for one writer at a time, which a lock on the file
// sees to, and one goroutine.
//
// It goes on in a new file when somebody has moved or deleted the one that it
// had, directory and all, and keeps lines whole: what could not be written to
// its end is taken back, at the latest when the file is opened again.
type File struct {
	config FileConfig
	file   *os.File
	// info identifies file.
	info os.FileInfo
	size int64
	// rotateAt is the size from which the file gives way to a new one.
	rotateAt int64
	// named says that the file's name outlives a power cut too.
	named bool
}

// FileConfig says where lines go.
type FileConfig struct {
	Path string
	// MaxSize of a file, in bytes, by default 64 MiB; and how many older ones
	// stay beside it, by default 8.
	MaxSize  int64
	MaxFiles int
	// Logger is told what was mended. It and Path are required.
	Logger *slog.Logger
}

var _ Sink = (*File)(nil)

// NewFile returns a file that is opened, and made if need be, when something is
// appended. A file that others can read, a link, or one that another process
// writes to is an error then.
func NewFile(c FileConfig) (*File, error) {
	if c.Path == "" || c.Logger == nil {
		return nil, errors.New("decision log needs a path and a logger")
	}
	c.MaxSize, c.MaxFiles = cmp.Or(c.MaxSize, 64<<20), cmp.Or(c.MaxFiles, 8)
	return &File{config: c}, nil
}

// Durable implements [Sink]: what is in a file outlives a power cut.
func (*File) Durable() bool { return true }

// Append implements [Sink].
func (f *File) Append(lines []byte, durably bool) error {
	if err := f.ready(int64(len(lines))); err != nil {
		return err
	}
	_, err := f.file.Write(lines)
	if err == nil && durably {
		err = f.sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write decision log: %w", err), f.takeBack())
	}
	f.size += int64(len(lines))
	return nil
}

func (f *File) sync() error {
	if err := f.file.Sync(); err != nil {
		return err
	}
	if f.named {
		return nil
	}
	dir, err := os.Open(filepath.Dir(f.config.Path))
	if err != nil {
		return err
	}
	err = errors.Join(dir.Sync(), dir.Close())
	f.named = err == nil
	return err
}

// takeBack removes what of the last lines was written. After a failed sync
// nobody knows what the disk has, so the file is opened anew in any case.
func (f *File) takeBack() error {
	defer f.drop()
	info, err := f.file.Stat()
	if err != nil || info.Size() <= f.size {
		return err
	}
	return f.file.Truncate(f.size)
}

func (f *File) drop() {
	_ = f.file.Close() // whatever was to be heard of it was heard
	f.file = nil
}

// Close implements [Sink].
func (f *File) Close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// ready opens the file if there is none or another in its place, and begins a
// new one if n more bytes are too many.
func (f *File) ready(n int64) error {
	if f.file != nil {
		now, err := os.Lstat(f.config.Path)
		if err != nil || !os.SameFile(now, f.info) {
			f.config.Logger.Warn("decision log was moved away, and goes on in a new file", "path", f.config.Path)
			f.drop()
		} else {
			f.size = now.Size() // who rotates by copying has cut it
		}
	}
	if f.file == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if f.size == 0 || f.size+n <= f.rotateAt {
		return nil
	}
	return f.rotate()
}

func (f *File) open() error {
	err := f.openFile()
	if err != nil {
		return fmt.Errorf("open decision log: %w", err)
	}
	return nil
}

func (f *File) openFile() (err error) {
	if err := os.MkdirAll(filepath.Dir(f.config.Path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(f.config.Path, os.O_APPEND|os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close() // nothing was written
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s must be a file with mode 0600, not %v", f.config.Path, info.Mode())
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s: another process writes to it: %w", f.config.Path, err)
	}
	size, err := f.mend(file, info.Size())
	if err != nil {
		return err
	}
	f.file, f.info, f.size, f.rotateAt, f.named = file, info, size, f.config.MaxSize, false
	return nil
}

// mend removes a last line without an end: who wrote it died before anybody
// relied on it. It returns the size that is left.
func (f *File) mend(file *os.File, size int64) (int64, error) {
	end, err := lastLineEnd(file, size)
	if err != nil || end == size {
		return size, err
	}
	if err := file.Truncate(end); err != nil {
		return size, err
	}
	f.config.Logger.Warn("decision log ended within a line, which was removed", "path", f.config.Path, "bytes", size-end)
	return end, nil
}

// lastLineEnd returns where the last whole line of a file ends.
func lastLineEnd(file io.ReaderAt, size int64) (int64, error) {
	chunk := make([]byte, 64<<10)
	for end := size; end > 0; {
		begin := max(end-int64(len(chunk)), 0)
		read := chunk[:end-begin]
		if _, err := file.ReadAt(read, begin); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(read, '\n'); i >= 0 {
			return begin + int64(i) + 1, nil
		}
		end = begin
	}
	return 0, nil
}

// rotate begins a new file. Where that does not work the old one goes on: that
// it grows is better than that decisions are lost.
func (f *File) rotate() error {
	if err := f.shift(); err != nil {
		f.config.Logger.Error("decision log not rotated, and grows", "path", f.config.Path, "err", err)
		f.rotateAt = f.size + f.config.MaxSize
		return nil
	}
	f.drop()
	return f.open()
}

func (f *File) shift() error {
	for n := f.config.MaxFiles; n > 1; n-- {
		if err := os.Rename(f.older(n-1), f.older(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return os.Rename(f.config.Path, f.older(1))
}

func (f *File) older(n int) string { return fmt.Sprintf("%s.%d", f.config.Path, n) }
