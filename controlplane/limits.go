package controlplane

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits bounds how often each of several does something: workloads, all their
// instances together, or addresses.
type limits[K comparable] struct {
	perSecond rate.Limit
	burst     int

	mu sync.Mutex
	of map[K]*rate.Limiter
}

// maxLimited bounds whom a limit keeps apart. Those who come later share what
// the zero key may.
const maxLimited = 100_000

func (l *limits[K]) allow(key K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[K]*rate.Limiter{}
	}
	limiter := l.of[key]
	if limiter == nil && len(l.of) >= maxLimited {
		key = *new(K)
		limiter = l.of[key]
	}
	if limiter == nil {
		limiter = rate.NewLimiter(l.perSecond, l.burst)
		l.of[key] = limiter
	}
	return limiter.Allow()
}

// forget drops those who may do again as much as anybody.
func (l *limits[K]) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for key, limiter := range l.of {
		if limiter.TokensAt(now) >= float64(l.burst) {
			delete(l.of, key)
		}
	}
}
