package controlplane

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/steady"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/passport"
)

const (
	// maxPassportKeys bounds the endorsed keys of one gateway, whose instances
	// have one that they sign with, one for afterwards and one from before.
	maxPassportKeys = 192
	// maxLineageKeys bounds those of one agent: it pushes out its own first.
	maxLineageKeys = 8
	// maxOffered bounds the keys of one request.
	maxOffered = 4
	// revokedTime is longer than any request takes.
	revokedTime = time.Hour
)

// Why a key is not endorsed.
var (
	errPassportKey      = errors.New("passport key must be a public Ed25519 JWK with its thumbprint as kid")
	errPassportKeys     = fmt.Errorf("the gateway has %d passport keys in use already", maxPassportKeys)
	errPassportKeyTaken = errors.New("passport key is another agent's, or was revoked: make a new one")
)

// passportKeys are the public keys that gateways may sign Passports with. An
// endorsement lives as long as the certificate that was signed along with it,
// is renewed with it, and revoked with it. It is on disk before the gateway
// hears of it.
type passportKeys struct {
	collection xds.Collection
	path       string
	log        *slog.Logger

	mu          sync.Mutex
	trustDomain string
	grants      map[string]grant
	// endorsed are the keys of each gateway, the one renewed last at the end, and
	// barred those that were revoked.
	endorsed map[string][]endorsement
	barred   revokedKeys
	clock    *steady.Clock
	// revoked are the lineages that were revoked lately, and when: a request of
	// theirs may be under way.
	revoked map[string]time.Time
	// unsaved says that the disk has another state.
	unsaved bool
	readiness
}

// savedKeys are what is on disk.
type savedKeys struct {
	Endorsed map[string][]endorsement `json:"endorsed"`
	Revoked  revokedKeys              `json:"revoked"`
}

// endorsement is one key of a gateway.
type endorsement struct {
	ID    string          `json:"id"`
	JWK   json.RawMessage `json:"jwk"`
	Until time.Time       `json:"until"`
	// Renewed is when it was endorsed last, First when for the first time.
	Renewed time.Time `json:"renewed"`
	First   time.Time `json:"first"`
	// Lineage of the certificates that it goes with.
	Lineage string `json:"lineage,omitempty"`
	// Ready says that the gateway may sign with it.
	Ready bool `json:"ready,omitempty"`
}

// life is how long an endorsement lasts.
func (e endorsement) life() time.Duration { return e.Until.Sub(e.Renewed) }

// good reports whether Passports that it signed are taken.
func (e endorsement) good() bool { return time.Now().Before(e.Until) }

// inUse reports whether an instance may still be there that signs with the key:
// it would have renewed it at about half of its life.
func (e endorsement) inUse() bool { return time.Until(e.Until) > e.life()/4 }

// endorser is the agent of a gateway, by the certificate that it gets.
type endorser struct {
	gateway string
	lineage string
	until   time.Time
}

// openPassportKeys reads what was endorsed before.
func openPassportKeys(path string, log *slog.Logger) (*passportKeys, error) {
	saved := savedKeys{Endorsed: map[string][]endorsement{}, Revoked: revokedKeys{}}
	if err := readState(path, &saved); err != nil {
		return nil, fmt.Errorf("endorsed passport keys: %w", err)
	}
	return &passportKeys{
		path: path, log: log, endorsed: saved.Endorsed, barred: saved.Revoked, clock: steady.New(time.Now),
		revoked: map[string]time.Time{}, readiness: newReadiness(),
	}, nil
}

// use makes exactly these gateways known, without a key if need be, and lets
// their keys speak for no more than this, and for an overlap than before.
func (pk *passportKeys) use(trustDomain string, scopes map[string]scope, overlap time.Duration) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	for name := range pk.grants {
		if _, ok := scopes[name]; !ok {
			pk.collection.Apply(nil, name)
			pk.signing.Apply(nil, name)
		}
	}
	grants := map[string]grant{}
	for name, s := range scopes {
		grants[name] = grant{scope: s}
		if had, ok := pk.grants[name]; ok {
			grants[name] = had.change(s, overlap)
		}
	}
	pk.trustDomain, pk.grants = trustDomain, grants
	for name := range grants {
		pk.publish(name)
	}
}

// endorse lets an agent sign with keys, for as long as its certificate. A new
// key takes no other's place that is in use: else one instance could make all
// the others speak in vain.
func (pk *passportKeys) endorse(by endorser, jwks ...[]byte) error {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	keys, err := pk.with(by, jwks)
	if err != nil {
		return err
	}
	before := pk.endorsed[by.gateway]
	pk.endorsed[by.gateway] = keys
	if err := pk.save(); err != nil {
		pk.endorsed[by.gateway] = before
		return err
	}
	pk.publish(by.gateway)
	return nil
}

// admits returns the error that endorse would: before there is a certificate, of
// which there would be one more each time otherwise. Without a lineage, by is an
// agent that has no key yet.
func (pk *passportKeys) admits(by endorser, jwks ...[]byte) error {
	if len(jwks) == 0 {
		return nil
	}
	pk.mu.Lock()
	defer pk.mu.Unlock()
	_, err := pk.with(by, jwks)
	return err
}

// with returns a gateway's keys with those of an agent. The caller holds the
// lock.
func (pk *passportKeys) with(by endorser, jwks [][]byte) ([]endorsement, error) {
	if _, revoked := pk.revoked[by.lineage]; revoked {
		return nil, errPassportKeyTaken
	}
	if len(jwks) > maxOffered {
		return nil, fmt.Errorf("%w: at most %d at once", errPassportKeys, maxOffered)
	}
	keys := slices.Clone(pk.endorsed[by.gateway])
	for _, jwk := range jwks {
		var err error
		if keys, err = pk.renew(keys, by, jwk); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// renew returns keys with one more, or one for longer, at the end.
func (pk *passportKeys) renew(keys []endorsement, by endorser, jwk []byte) ([]endorsement, error) {
	e, err := pk.parse(by, jwk)
	if err != nil {
		return nil, err
	}
	if pk.isTaken(e.ID, by) {
		return nil, errPassportKeyTaken
	}
	if i := slices.IndexFunc(keys, func(k endorsement) bool { return k.ID == e.ID }); i >= 0 {
		e.First, e.Ready = keys[i].First, keys[i].Ready
		return append(slices.Delete(keys, i, i+1), e), nil
	}
	own := func(k endorsement) bool { return k.Lineage == by.lineage }
	if count(keys, own) >= maxLineageKeys {
		i := slices.IndexFunc(keys, own)
		keys = slices.Delete(keys, i, i+1)
	}
	if len(keys) >= maxPassportKeys {
		if keys[0].inUse() {
			return nil, errPassportKeys
		}
		keys = slices.Delete(keys, 0, 1)
	}
	return append(keys, e), nil
}

func count(keys []endorsement, fits func(endorsement) bool) (n int) {
	for _, k := range keys {
		if fits(k) {
			n++
		}
	}
	return n
}

func (pk *passportKeys) parse(by endorser, jwk []byte) (endorsement, error) {
	id, key, err := passport.ParseKey(jwk, gatewayID(by.gateway).SPIFFE(pk.trustDomain))
	if err != nil {
		return endorsement{}, fmt.Errorf("%w: %w", errPassportKey, err)
	}
	public, ok := key.Public.(ed25519.PublicKey)
	if !ok {
		return endorsement{}, errPassportKey
	}
	// Only what the key is: whatever else was sent is not passed on.
	if jwk, err = passport.EncodeKey(public); err != nil {
		return endorsement{}, err
	}
	now := time.Now()
	return endorsement{ID: id, JWK: jwk, Until: by.until, Renewed: now, First: now, Lineage: by.lineage}, nil
}

// isTaken reports whether a key is another's than that of this agent. Whoever
// could have another's public key endorsed would silence that one; and a key
// that was revoked must not come back with another certificate.
func (pk *passportKeys) isTaken(id string, by endorser) bool {
	if _, barred := pk.barred[id]; barred {
		return true
	}
	for gateway, keys := range pk.endorsed {
		for _, e := range keys {
			if e.ID == id && (gateway != by.gateway || e.Lineage != by.lineage) {
				return true
			}
		}
	}
	return false
}

// revoke ends the keys that certificates of these lineages endorsed, whether it
// can be written down or not; what cannot is tried again.
func (pk *passportKeys) revoke(lineages []string) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	for _, lineage := range lineages {
		pk.revoked[lineage] = time.Now()
	}
	pk.end(func(lineage string) bool { return slices.Contains(lineages, lineage) })
}

// retain ends the keys that no certificate goes with any more, by the ledger of
// the authority: those of an authority that was revoked, or of certificates that
// were revoked just before an earlier process died.
func (pk *passportKeys) retain(live func() []ca.Certificate) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	// Under the lock, since a certificate is in the ledger before its keys are
	// endorsed.
	lineages := map[string]bool{}
	for _, c := range live() {
		lineages[c.Lineage] = true
	}
	pk.end(func(lineage string) bool { return !lineages[lineage] })
}

// end ends the keys of lineages. The caller holds the lock.
func (pk *passportKeys) end(revoked func(lineage string) bool) {
	for gateway, keys := range pk.endorsed {
		left := slices.DeleteFunc(slices.Clone(keys), func(e endorsement) bool {
			if revoked(e.Lineage) {
				pk.barred.add(e.ID, e.Until)
				return true
			}
			return false
		})
		if len(left) < len(keys) {
			pk.endorsed[gateway] = left
			pk.unsaved = true
			pk.publish(gateway)
		}
	}
	pk.tryToSave()
}

// run drops what has ended, and finds keys ready, until ctx ends.
func (pk *passportKeys) run(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, time.Second)
		pk.expire()
	}
}

// expire drops endorsements and scopes that have ended, and what the former
// waited for.
func (pk *passportKeys) expire() {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	now := time.Now()
	// A key that a clock which is wrong has ended would be missed.
	jump, settled := pk.clock.Look()
	pk.forget(now)
	maps.DeleteFunc(pk.revoked, func(_ string, at time.Time) bool { return now.Sub(at) > revokedTime })
	pk.expireGrants(now)
	if settled && pk.barred.expire(now) {
		pk.unsaved = true
	}
	ended := func(e endorsement) bool { return now.After(e.Until) }
	for gateway, keys := range pk.endorsed {
		if jump == 0 && slices.ContainsFunc(keys, ended) {
			pk.endorsed[gateway] = slices.DeleteFunc(keys, ended)
			pk.unsaved = true
			pk.publish(gateway)
		}
		pk.settle(gateway)
	}
	pk.tryToSave()
	maps.DeleteFunc(pk.lacking, func(id string, _ map[*taker]struct{}) bool { return !pk.isWaiting(id) })
}

// expireGrants drops scopes that have ended. The caller holds the lock.
func (pk *passportKeys) expireGrants(now time.Time) {
	for gateway, had := range pk.grants {
		if left, changed := had.expire(now); changed {
			pk.grants[gateway] = left
			pk.publish(gateway)
		}
	}
}

// isWaiting reports whether a key is going to be ready.
func (pk *passportKeys) isWaiting(id string) bool {
	for _, keys := range pk.endorsed {
		if slices.ContainsFunc(keys, func(e endorsement) bool { return e.ID == id && !e.Ready && e.good() }) {
			return true
		}
	}
	return false
}

// tryToSave saves what is unsaved, now or in a while.
func (pk *passportKeys) tryToSave() {
	if !pk.unsaved {
		return
	}
	if err := pk.save(); err != nil {
		pk.log.Error("endorsed passport keys not saved", "err", err)
	}
}

func (pk *passportKeys) save() error {
	err := writeState(pk.path, savedKeys{pk.endorsed, pk.barred})
	pk.unsaved = err != nil
	return err
}

// publish puts a gateway's keys into the collection. The caller holds the
// lock.
func (pk *passportKeys) publish(gateway string) {
	grant, known := pk.grants[gateway]
	if !known {
		return
	}
	owner := gatewayID(gateway).SPIFFE(pk.trustDomain)
	set, err := pk.keySet(gateway, owner, grant.total())
	var jwks []byte
	if err == nil {
		jwks, err = json.Marshal(set)
	}
	var r *xds.Resource
	if err == nil {
		r, err = xds.New(gateway, &chancerypb.PassportKeys{Gateway: gateway, SpiffeId: owner, Jwks: jwks})
	}
	if err != nil {
		pk.log.Error("passport keys not encoded", "gateway", gateway, "err", err)
		return
	}
	var fresh []string
	for _, e := range pk.endorsed[gateway] {
		if !e.Ready && e.good() {
			fresh = append(fresh, e.ID)
		}
	}
	pk.published(gateway, r.Version, slices.Collect(maps.Keys(set)), fresh)
	pk.collection.Apply([]*xds.Resource{r})
	pk.settle(gateway)
	pk.tell(gateway)
}

// keySet returns the keys of a gateway that are good.
func (pk *passportKeys) keySet(gateway, owner string, s scope) (passport.KeySet, error) {
	set := passport.KeySet{}
	for _, e := range pk.endorsed[gateway] {
		if !e.good() {
			continue
		}
		_, key, err := passport.ParseKey(e.JWK, owner)
		if err != nil {
			return nil, err
		}
		key.Until, key.Providers, key.Tenants = e.Until, s.providers, s.tenants
		set[e.ID] = key
	}
	return set, nil
}
