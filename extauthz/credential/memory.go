package credential

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// memory remembers values until they end. It is bounded, in entries and in
// bytes, and reading it takes no lock: a key has a few places where it may be,
// and a new one takes the place of another when all are taken. Keys are digests
// that nobody can choose.
type memory[V any] struct{ buckets []bucket[V] }

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

func newMemory[V any](size int) memory[V] {
	return memory[V]{make([]bucket[V], max(1, size/places))}
}

func (m *memory[V]) bucket(key *[sha256.Size]byte) *bucket[V] {
	return &m.buckets[binary.BigEndian.Uint64(key[:])%uint64(len(m.buckets))]
}

func (m *memory[V]) get(key *[sha256.Size]byte, now time.Time) (value V, ok bool) {
	b := m.bucket(key)
	for i := range b {
		if e := b[i].Load(); e != nil && e.key == *key && !now.After(e.until) {
			return e.value, true
		}
	}
	return value, false
}

// put prefers a free place; otherwise the key picks one, which is as good as
// chance.
func (m *memory[V]) put(e *entry[V], now time.Time) {
	b := m.bucket(&e.key)
	place, size := int(e.key[8])%places, 0
	for i := range b {
		old := b[i].Load()
		if old == nil || now.After(old.until) {
			place = i
			continue
		}
		size += old.size
	}
	b[place].Store(e)
	for i := 1; i < places && size+e.size > bucketBytes; i++ {
		if old := b[(place+i)%places].Swap(nil); old != nil {
			size -= old.size
		}
	}
}
