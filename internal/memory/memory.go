// Package memory remembers values for a while, in a fixed amount of it.
package memory

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// Memory remembers values until they end. It is bounded, in entries and in
// bytes, and reading it takes no lock: a key has a few places where it may be,
// and a new one takes the place of another when all are taken. Keys are digests
// that nobody can choose. It is safe for concurrent use.
type Memory[V any] struct{ buckets []bucket[V] }

const (
	places = 4
	// bucketBytes bounds what the entries of a bucket hold. Four usual tokens
	// are far below it.
	bucketBytes = 16 << 10
)

type bucket[V any] [places]atomic.Pointer[entry[V]]

type entry[V any] struct {
	key   [sha256.Size]byte
	value V
	until time.Time
	// size is what it holds, in bytes.
	size int
}

// New returns a Memory for about size values.
func New[V any](size int) *Memory[V] {
	return &Memory[V]{make([]bucket[V], max(1, size/places))}
}

func (m *Memory[V]) bucket(key *[sha256.Size]byte) *bucket[V] {
	return &m.buckets[binary.BigEndian.Uint64(key[:])%uint64(len(m.buckets))]
}

// Get returns the value of key, if there is one that has not ended.
func (m *Memory[V]) Get(key *[sha256.Size]byte, now time.Time) (value V, ok bool) {
	b := m.bucket(key)
	for i := range b {
		if e := b[i].Load(); e != nil && e.key == *key && !now.After(e.until) {
			return e.value, true
		}
	}
	return value, false
}

// Put remembers a value, which holds size bytes, until then; but none that is
// larger than a bucket may be. It prefers a free place; otherwise the key picks
// one, which is as good as chance.
func (m *Memory[V]) Put(key [sha256.Size]byte, value V, until time.Time, size int, now time.Time) {
	if size > bucketBytes {
		return
	}
	b := m.bucket(&key)
	place, held := int(key[8])%places, 0
	for i := range b {
		old := b[i].Load()
		if old == nil || now.After(old.until) {
			place = i
			continue
		}
		held += old.size
	}
	b[place].Store(&entry[V]{key, value, until, size})
	for i := 1; i < places && held+size > bucketBytes; i++ {
		if old := b[(place+i)%places].Swap(nil); old != nil {
			held -= old.size
		}
	}
}

// Held returns how many values it holds, and of how many bytes.
func (m *Memory[V]) Held() (values, bytes int) {
	for i := range m.buckets {
		for j := range m.buckets[i] {
			if e := m.buckets[i][j].Load(); e != nil {
				values++
				bytes += e.size
			}
		}
	}
	return values, bytes
}
