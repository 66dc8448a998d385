package file_test

import (
	"log/slog"
	"strings"
	"sync"
)

// syncBuilder gathers a log that another goroutine writes.
type syncBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuilder) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuilder) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *syncBuilder) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(s, nil))
}
