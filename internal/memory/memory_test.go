package memory_test

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/internal/memory"
)

var now = time.Unix(1_800_000_000, 0)

func key(i int) [sha256.Size]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

func TestMemory(t *testing.T) {
	t.Parallel()
	m := memory.New[int](64)
	get := func(i int, at time.Time) (int, bool) { k := key(i); return m.Get(&k, at) }
	if _, ok := get(1, now); ok {
		t.Error("knows what it was not told")
	}
	m.Put(key(1), 10, now.Add(time.Minute), 1, now)
	m.Put(key(2), 20, now.Add(time.Hour), 1, now)
	if v, ok := get(1, now.Add(time.Minute)); !ok || v != 10 {
		t.Errorf("%d, %v", v, ok)
	}
	if _, ok := get(1, now.Add(time.Minute+1)); ok {
		t.Error("after its end")
	}
	if v, ok := get(2, now.Add(time.Minute+1)); !ok || v != 20 {
		t.Errorf("another one: %d, %v", v, ok)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	small, large := memory.New[int](64), memory.New[int](64)
	for i := range 10_000 {
		small.Put(key(i), i, now.Add(time.Hour), 1, now)
		large.Put(key(i), i, now.Add(time.Hour), 10<<10, now)
	}
	if values, bytes := small.Held(); values != 64 || bytes != 64 {
		t.Errorf("%d values of %d bytes", values, bytes)
	}
	if values, bytes := large.Held(); values != 16 || bytes != 16*10<<10 {
		t.Errorf("%d large values of %d bytes", values, bytes)
	}
	for i := range 100 {
		large.Put(key(-1-i), i, now.Add(time.Hour), 16<<10+1, now)
	}
	if _, bytes := large.Held(); bytes != 16*10<<10 {
		t.Errorf("%d bytes, with values that are too large", bytes)
	}
	last := key(9_999)
	if v, ok := large.Get(&last, now); !ok || v != 9_999 {
		t.Errorf("the newest: %d, %v", v, ok)
	}
}
