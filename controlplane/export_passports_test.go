package controlplane

import (
	"slices"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/steady"
)

// Scope is what keys may speak for.
type Scope struct{ Providers, Tenants []string }

// ScopeOverlap is how long a scope goes on in tests.
const ScopeOverlap = time.Minute

// Passports returns the keys of a server.
func Passports(s *Server) PassportKeys { return PassportKeys{s.passports} }

// UseScopes is use.
func (pk PassportKeys) UseScopes(trustDomain string, scopes map[string]Scope) {
	m := map[string]scope{}
	for name, s := range scopes {
		m[name] = scope{s.Providers, s.Tenants}
	}
	pk.use(trustDomain, m, ScopeOverlap)
}

// ExpireGrants is expireGrants.
func (pk PassportKeys) ExpireGrants(now time.Time) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	pk.expireGrants(now)
}

// EndorseFor is endorse.
func (pk PassportKeys) EndorseFor(gateway, lineage string, life time.Duration, jwks ...[]byte) error {
	return pk.endorse(endorser{gateway: gateway, lineage: lineage, until: time.Now().Add(life)}, jwks...)
}

// Admits is admits.
func (pk PassportKeys) Admits(gateway, lineage string, jwks ...[]byte) error {
	return pk.admits(endorser{gateway: gateway, lineage: lineage, until: time.Now().Add(time.Hour)}, jwks...)
}

// Revoked counts the revoked keys that are remembered.
func (pk PassportKeys) Revoked() int { return len(pk.barred) }

// RevokedKeys are revokedKeys.
type RevokedKeys map[string]time.Time

// Add is add.
func (r RevokedKeys) Add(id string, until time.Time) { revokedKeys(r).add(id, until) }

// MaxRevokedKeys bounds them.
const MaxRevokedKeys = maxRevokedKeys

// SetClock makes the clock seem to be so far from where it was.
func (pk PassportKeys) SetClock(ahead *time.Duration) {
	pk.clock = steady.New(func() time.Time { return time.Now().Add(*ahead) })
}

// Held returns how many keys of a gateway are remembered.
func (pk PassportKeys) Held(gateway string) int { return len(pk.endorsed[gateway]) }

// Revoke and Retain are revoke and retain.
func (pk PassportKeys) Revoke(lineages ...string) { pk.revoke(lineages) }

func (pk PassportKeys) Retain(lineages ...string) {
	pk.retain(func() (live []ca.Certificate) {
		for _, l := range lineages {
			live = append(live, ca.Certificate{Lineage: l})
		}
		return live
	})
}

// Published returns what PDPs are given of a gateway, and its version.
func (pk PassportKeys) Published(gateway string) (keys *chancerypb.PassportKeys, version string) {
	r := pk.collection.Resources()[gateway]
	keys = &chancerypb.PassportKeys{}
	if err := r.Decode(keys); err != nil {
		panic(err)
	}
	return keys, r.Version
}

// Ready returns the keys that a gateway may sign with.
func (pk PassportKeys) Ready(gateway string) []string {
	var m chancerypb.SigningKeys
	if err := pk.signing.Resources()[gateway].Decode(&m); err != nil {
		panic(err)
	}
	return slices.Sorted(slices.Values(m.GetReady()))
}

// PDP is one that takes the Passports of a gateway.
type PDP struct {
	keys    PassportKeys
	gateway string
	taker   *taker
}

// Subscribe begins a stream of the PDP whose certificates are of a lineage, which
// asks for the keys of the gateway public and holds a version of them, if any.
func (pk PassportKeys) Subscribe(lineage string, id identity.ID, version string) PDP {
	const gateway = "public"
	p := PDP{pk, gateway, &taker{id: id, lineage: lineage}}
	held := map[string]string{}
	if version != "" {
		held[gateway] = version
	}
	pk.asked(p.taker, []string{gateway}, held)
	return p
}

func (p PDP) ACK(version string) {
	p.keys.acknowledged(p.taker, map[string]string{p.gateway: version})
}
func (p PDP) Unsubscribe() { p.keys.dropped(p.taker, []string{p.gateway}) }
func (p PDP) Leave()       { p.keys.left(p.taker) }
