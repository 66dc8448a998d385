package controlplane

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/passport"
)

// maxPassportKeys bounds the endorsed keys of one gateway, whose instances
// have one each.
const maxPassportKeys = 64

// Why a key is not endorsed.
var (
	errPassportKey  = errors.New("passport key must be a public Ed25519 JWK with its thumbprint as kid")
	errPassportKeys = fmt.Errorf("the gateway has %d passport keys in use already", maxPassportKeys)
)

// passportKeys are the public keys that gateways may sign Passports with. An
// endorsement lives as long as the certificate that was signed along with it,
// and is renewed with it. It is on disk before the gateway hears of it.
type passportKeys struct {
	collection xds.Collection
	path       string
	// life is how long an endorsement lasts.
	life time.Duration
	log  *slog.Logger

	mu          sync.Mutex
	trustDomain string
	gateways    []string
	// endorsed are the keys of each gateway, the one renewed last at the end.
	endorsed map[string][]endorsement
}

// endorsement is one key of a gateway.
type endorsement struct {
	ID    string          `json:"id"`
	JWK   json.RawMessage `json:"jwk"`
	Until time.Time       `json:"until"`
}

// openPassportKeys reads what was endorsed before.
func openPassportKeys(path string, life time.Duration, log *slog.Logger) (*passportKeys, error) {
	pk := &passportKeys{path: path, life: life, log: log, endorsed: map[string][]endorsement{}}
	if err := readState(path, &pk.endorsed); err != nil {
		return nil, fmt.Errorf("endorsed passport keys: %w", err)
	}
	return pk, nil
}

// use makes exactly these gateways known, without a key if need be.
func (pk *passportKeys) use(trustDomain string, gateways []string) {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	for _, name := range pk.gateways {
		if !slices.Contains(gateways, name) {
			pk.collection.Apply(nil, name)
		}
	}
	pk.trustDomain, pk.gateways = trustDomain, gateways
	for _, name := range gateways {
		pk.publish(name)
	}
}

// endorse lets a gateway sign with a key, for as long again if it does so
// already. A new key takes no other's place that is in use: else one instance
// could make all the others speak in vain.
func (pk *passportKeys) endorse(gateway string, jwk []byte) error {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	id, key, err := passport.ParseKey(jwk, gatewayID(gateway).SPIFFE(pk.trustDomain))
	if err != nil {
		return fmt.Errorf("%w: %w", errPassportKey, err)
	}
	public, ok := key.Public.(ed25519.PublicKey)
	if !ok {
		return errPassportKey
	}
	// Only what the key is: whatever else was sent is not passed on.
	if jwk, err = passport.EncodeKey(public); err != nil {
		return err
	}
	before := pk.endorsed[gateway]
	keys := slices.DeleteFunc(slices.Clone(before), func(e endorsement) bool { return e.ID == id })
	if len(keys) >= maxPassportKeys {
		if pk.inUse(keys[0]) {
			return errPassportKeys
		}
		keys = keys[1:]
	}
	pk.endorsed[gateway] = append(keys, endorsement{ID: id, JWK: jwk, Until: time.Now().Add(pk.life)})
	if err := pk.save(); err != nil {
		pk.endorsed[gateway] = before
		return err
	}
	pk.publish(gateway)
	return nil
}

// inUse reports whether an instance may still be there that signs with a key: it
// would have renewed it at about half of its life.
func (pk *passportKeys) inUse(e endorsement) bool { return time.Until(e.Until) > pk.life/4 }

// expire drops endorsements that have ended.
func (pk *passportKeys) expire() {
	pk.mu.Lock()
	defer pk.mu.Unlock()
	now := time.Now()
	ended := func(e endorsement) bool { return now.After(e.Until) }
	for gateway, keys := range pk.endorsed {
		if !slices.ContainsFunc(keys, ended) {
			continue
		}
		pk.endorsed[gateway] = slices.DeleteFunc(keys, ended)
		if slices.Contains(pk.gateways, gateway) {
			pk.publish(gateway)
		}
		if err := pk.save(); err != nil {
			pk.log.Error("endorsed passport keys not saved", "err", err)
		}
	}
}

func (pk *passportKeys) save() error { return writeState(pk.path, pk.endorsed) }

// publish puts a gateway's keys into the collection. The caller holds the
// lock.
func (pk *passportKeys) publish(gateway string) {
	keys := []json.RawMessage{}
	for _, e := range pk.endorsed[gateway] {
		if time.Now().Before(e.Until) {
			keys = append(keys, e.JWK)
		}
	}
	jwks, err := json.Marshal(map[string]any{"keys": keys})
	var r *xds.Resource
	if err == nil {
		r, err = xds.New(gateway, &chancerypb.PassportKeys{
			Gateway:  gateway,
			SpiffeId: gatewayID(gateway).SPIFFE(pk.trustDomain),
			Jwks:     jwks,
		})
	}
	if err != nil {
		pk.log.Error("passport keys not encoded", "gateway", gateway, "err", err)
		return
	}
	pk.collection.Apply([]*xds.Resource{r})
}
