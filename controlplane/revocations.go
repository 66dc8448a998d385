package controlplane

import (
	"cmp"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-mesh/chancery/internal/steady"
	"github.com/chancery-mesh/chancery/mesh"
)

const (
	// maxRevocations bounds those of credentials: every PDP has all of them in
	// memory.
	maxRevocations = 100_000
	// minRevocationLife is how long a revocation lasts at least, unless an
	// operator says otherwise: documents may let tokens live longer by then.
	minRevocationLife = 24 * time.Hour
	// revocationSlack is added for what is under way.
	revocationSlack = time.Minute
)

// revocations are the credentials that operators revoked. A change is on disk
// before PDPs hear of it; on a full disk they hear of it even so. It is safe for
// concurrent use.
type revocations struct {
	log   *slog.Logger
	clock *steady.Clock

	mu sync.Mutex
	*revocationShards
	// providers are those of the documents, passport is how long Passports live.
	providers []*mesh.IdentityProvider
	passport  time.Duration
}

// openRevocations reads what was revoked before.
func openRevocations(dir string, log *slog.Logger) (*revocations, error) {
	shards, err := openRevocationShards(dir)
	if err != nil {
		return nil, fmt.Errorf("revocations: %w", err)
	}
	return &revocations{log: log, clock: steady.New(time.Now), revocationShards: shards}, nil
}

// use takes what the documents say of providers. Revocations follow an issuer to
// the names of its documents, and last as long as its tokens may.
func (rs *revocations) use(providers []*mesh.IdentityProvider, passport time.Duration) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.providers, rs.passport = providers, passport
	var changed []string
	for r := range rs.all() {
		names, expires := rs.names(r), r.Expires
		if !r.Fixed {
			expires = latest(expires, r.Before.Add(rs.life(r.Issuer)))
		}
		if len(names) > len(r.Providers) || expires.After(r.Expires) {
			r.Providers, r.Expires = names, expires
			rs.put(r)
			changed = append(changed, r.ID)
		}
	}
	rs.report(rs.change(changed...))
}

// names returns the names of the documents that an entry is about.
func (rs *revocations) names(r CredentialRevocation) []string {
	if r.Issuer == "" {
		return nil
	}
	names := slices.Clone(r.Providers)
	for p := range rs.of(r.Issuer) {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// of returns the providers of an issuer; all, if it is empty.
func (rs *revocations) of(issuer string) iter.Seq[*mesh.IdentityProvider] {
	return func(yield func(*mesh.IdentityProvider) bool) {
		for _, p := range rs.providers {
			if (issuer == "" || p.Issuer == issuer) && !yield(p) {
				return
			}
		}
	}
}

// life is how long after their issue tokens of an issuer, and Passports that were
// minted for them, can be taken.
func (rs *revocations) life(issuer string) time.Duration {
	longest := minRevocationLife
	for p := range rs.of(issuer) {
		longest = max(longest, p.MaxTokenLifetime+p.ClockSkew)
	}
	return longest + rs.passport + revocationSlack
}

// resolve returns the issuer that an operator names, by the name of its document
// or by itself; empty for neither.
func (rs *revocations) resolve(provider, issuer string) (string, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if provider == "" && issuer == "" {
		return "", nil
	}
	known := make([]string, 0, len(rs.providers))
	for _, p := range rs.providers {
		if p.Name == provider || p.Issuer == issuer {
			return p.Issuer, nil
		}
		known = append(known, p.Name+" ("+p.Issuer+")")
	}
	return "", notFoundf("there is no identity provider %q; there are: %s", cmp.Or(provider, issuer), strings.Join(known, ", "))
}

// add revokes. A revocation of the same is widened. It returns what is in force
// then, and errUnsavedRevocation when that is not on disk.
func (rs *revocations) add(r CredentialRevocation) (CredentialRevocation, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.Before.IsZero() {
		r.Before = r.Revoked.Add(rs.skew(r.Issuer))
	}
	if natural := r.Before.Add(rs.life(r.Issuer)); !r.Fixed {
		r.Expires = natural
	}
	if !r.Expires.After(r.Revoked) {
		return r, invalidf("nothing that was issued before %s can still be good: tokens live %s at most", r.Before.Format(time.RFC3339), rs.life(r.Issuer))
	}
	r.ID, r.Providers = r.id(), rs.names(r)
	had, again := rs.get(r.ID)
	if !again && rs.size >= maxRevocations {
		return r, rs.full()
	}
	if again {
		r.Before, r.Expires = latest(r.Before, had.Before), latest(r.Expires, had.Expires)
		r.Fixed = r.Fixed && had.Fixed
	}
	rs.put(r)
	return r, rs.change(r.ID)
}

// skew is how far the clock of an issuer may be ahead: what it issued before now
// may say that it was issued later.
func (rs *revocations) skew(issuer string) (skew time.Duration) {
	for p := range rs.of(issuer) {
		skew = max(skew, p.ClockSkew)
	}
	return skew
}

// full says that there is no place for another, and when there will be.
func (rs *revocations) full() error {
	first := slices.MinFunc(slices.Collect(rs.all()), func(a, b CredentialRevocation) int { return a.Expires.Compare(b.Expires) })
	return fmt.Errorf("there are %d revocations, which is the most, and the next of them ends at %s: undo some (chancery revoke list, chancery revoke undo), or revoke a whole client or tenant",
		rs.size, first.Expires.Format(time.RFC3339))
}

// undo takes a revocation back, and returns it.
func (rs *revocations) undo(id string) (CredentialRevocation, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r, ok := rs.get(id)
	if !ok {
		return r, notFoundf("there is no revocation %q, or it has ended", id)
	}
	rs.drop(id)
	return r, rs.change(id)
}

// list returns all, the oldest first.
func (rs *revocations) list() []CredentialRevocation {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return slices.SortedFunc(rs.all(), func(a, b CredentialRevocation) int {
		return cmp.Or(a.Revoked.Compare(b.Revoked), cmp.Compare(a.ID, b.ID))
	})
}

// newest returns the sequence of the last change, and since when it is there.
func (rs *revocations) newest() (sequence uint64, since time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.sequence, rs.since
}

// count returns how many there are.
func (rs *revocations) count() int {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.size
}

// tidy drops what has ended, by a clock that can be believed, and saves what
// could not be saved.
func (rs *revocations) tidy() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if _, settled := rs.clock.Look(); settled {
		var ended []string
		for r := range rs.all() {
			if time.Now().After(r.Expires) {
				rs.drop(r.ID)
				ended = append(ended, r.ID)
			}
		}
		rs.report(rs.change(ended...))
	}
	rs.report(rs.save())
}

// report logs that a change was not saved.
func (rs *revocations) report(err error) {
	if err != nil {
		rs.log.Error("revocations not saved", "err", err)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
