package controlplane

import (
	"log/slog"
	"time"

	"github.com/chancery-mesh/chancery/mesh"
)

// Revocations are revocations.
type Revocations struct{ *revocations }

// OpenRevocations is openRevocations.
func OpenRevocations(path string) (Revocations, error) {
	rs, err := openRevocations(path, slog.New(slog.DiscardHandler))
	return Revocations{rs}, err
}

// Add revokes a subject's credentials, and returns the ID of that.
func (r Revocations) Add(subject string) (string, error) {
	entry, err := r.add(CredentialRevocation{Target: Target{Subject: subject}, Revoked: time.Now()})
	return entry.ID, err
}

// Has reports whether there is a revocation.
func (r Revocations) Has(id string) bool {
	_, ok := r.get(id)
	return ok
}

// Expires returns when it ends.
func (r Revocations) Expires(id string) time.Time {
	entry, _ := r.get(id)
	return entry.Expires
}

// Sequence returns that of the last change.
func (r Revocations) Sequence() uint64 {
	sequence, _ := r.newest()
	return sequence
}

// Use and Tidy are use and tidy.
func (r Revocations) Use(providers []*mesh.IdentityProvider, passport time.Duration) {
	r.use(providers, passport)
}

func (r Revocations) Tidy() { r.tidy() }
