package service

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/chancery-mesh/chancery/passport"
)

// Received is what reached a service, checked or not. The demo reads it to see
// what really happened behind the answers.
type Received struct {
	// Requests by method and path.
	Requests map[string]int `json:"requests"`
	Total    int            `json:"total"`
	// WithoutPassport counts requests that nobody can have checked, and
	// WithAuthorization those that brought a credential from outside.
	WithoutPassport   int `json:"without_passport"`
	WithAuthorization int `json:"with_authorization"`
	// Passport came last. A service that is not a demo would never show it.
	Passport string `json:"passport"`
}

// ledger counts.
type ledger struct {
	mu sync.Mutex
	r  Received
}

// count writes down each request before next sees it.
func (l *ledger) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.add(r)
		next.ServeHTTP(w, r)
	})
}

func (l *ledger) add(r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.r.Requests == nil {
		l.r.Requests = map[string]int{}
	}
	l.r.Requests[r.Method+" "+r.URL.Path]++
	l.r.Total++
	if token := r.Header.Get(passport.Header); token != "" {
		l.r.Passport = token
	} else {
		l.r.WithoutPassport++
	}
	if len(r.Header.Values("Authorization")) > 0 {
		l.r.WithAuthorization++
	}
}

// ServeHTTP tells the counts.
func (l *ledger) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	data, err := json.Marshal(l.r)
	l.mu.Unlock()
	if err != nil {
		http.Error(w, "counts cannot be told", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // the client left: nobody to tell
}

// Add adds what reached another instance.
func (r *Received) Add(other Received) {
	for route, n := range other.Requests {
		r.Requests[route] += n
	}
	r.Total += other.Total
	r.WithoutPassport += other.WithoutPassport
	r.WithAuthorization += other.WithAuthorization
	if other.Passport != "" {
		r.Passport = other.Passport
	}
}
