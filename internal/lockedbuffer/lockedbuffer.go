// Package lockedbuffer has a buffer that is written while a test reads it, such as
// the log of what it tests.
package lockedbuffer

import (
	"bytes"
	"sync"
)

// Buffer is a [bytes.Buffer] for several writers and readers. The zero value is
// empty.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns all that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
