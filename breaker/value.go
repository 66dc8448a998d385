package breaker

import (
	"sync"
	"time"
)

// Value is the last good answer of another system, usable for a bounded time
// after it came. It is safe for concurrent use.
type Value[T any] struct {
	maxAge time.Duration

	mu sync.RWMutex
	v  T
	at time.Time
}

// NewValue returns an empty Value that forgets after maxAge.
func NewValue[T any](maxAge time.Duration) *Value[T] {
	return &Value[T]{maxAge: maxAge}
}

// Set makes v the last good answer, as of now.
func (l *Value[T]) Set(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.v, l.at = v, time.Now()
}

// Get returns the last good answer and its age; ok is false when there is none
// or it is too old to be used.
func (l *Value[T]) Get() (v T, age time.Duration, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.at.IsZero() {
		return v, 0, false
	}
	if age = time.Since(l.at); age > l.maxAge {
		return v, age, false
	}
	return l.v, age, true
}
