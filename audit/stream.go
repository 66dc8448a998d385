package audit

import (
	"fmt"
	"os"
	"syscall"
)

// Stream is a [Sink] to a process that reads: standard output, to whoever
// collects it.
type Stream struct {
	file *os.File
	// torn says that the last line has no end yet.
	torn bool
}

var _ Sink = (*Stream)(nil)

// NewStream returns a sink that writes to a copy of f. Unlike f itself, if that
// is standard output, its death does not end the process.
func NewStream(f *os.File) (*Stream, error) {
	fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_DUPFD_CLOEXEC, 3)
	if errno != 0 {
		return nil, fmt.Errorf("decision log to %s: %w", f.Name(), errno)
	}
	return &Stream{file: os.NewFile(fd, f.Name())}, nil
}

// Durable implements [Sink]: nobody knows what becomes of what was read.
func (*Stream) Durable() bool { return false }

// Append implements [Sink].
func (s *Stream) Append(lines []byte, _ bool) error {
	if len(lines) == 0 {
		return nil
	}
	if s.torn {
		lines = append([]byte{'\n'}, lines...)
	}
	n, err := s.file.Write(lines)
	s.torn = err != nil && (n > 0 || s.torn)
	return err
}

// Close implements [Sink].
func (s *Stream) Close() error { return s.file.Close() }
