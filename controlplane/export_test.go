package controlplane

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// Parts that are tested on their own.
var (
	Debounce     = debounce
	Mentions     = mentions
	PublicKeys   = publicKeys
	CheckKeysURL = checkKeysURL
)

// Their constants.
const (
	PushLead        = pushLead
	PushGap         = pushGap
	KeysEvery       = keysEvery
	MaxPassportKeys = maxPassportKeys
)

// PassportKeys are passportKeys.
type PassportKeys struct{ *passportKeys }

// OpenPassportKeys is openPassportKeys.
func OpenPassportKeys(path string, life time.Duration) (PassportKeys, error) {
	pk, err := openPassportKeys(path, life, slog.New(slog.DiscardHandler))
	return PassportKeys{pk}, err
}

// Use, Endorse and Expire are use, endorse and expire.
func (pk PassportKeys) Use(trustDomain string, gateways []string) { pk.use(trustDomain, gateways) }

func (pk PassportKeys) Endorse(gateway string, jwk []byte) error { return pk.endorse(gateway, jwk) }

func (pk PassportKeys) Expire() { pk.expire() }

// Count returns how many keys verifiers are given.
func (pk PassportKeys) Count(gateway string) int {
	var m chancerypb.PassportKeys
	if err := pk.collection.Resources()[gateway].Decode(&m); err != nil {
		panic(err)
	}
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(m.GetJwks(), &set); err != nil {
		panic(err)
	}
	return len(set.Keys)
}

// Keyring is a keyring.
type Keyring struct{ *keyring }

// NewKeyring returns one that fetches with client.
func NewKeyring(dir string, client *http.Client) Keyring {
	log := slog.New(slog.DiscardHandler)
	return Keyring{newKeyring(dir, Config{HTTPClient: client}, log, newMetrics(nil))}
}

// Use and Run are use and run.
func (k Keyring) Use(documents ...*mesh.IdentityProvider) { k.use(documents) }

func (k Keyring) Run(ctx context.Context) { k.run(ctx) }

// Tidy does once what the server does every now and then.
func Tidy(s *Server) { s.tidy() }

// Connect is a proxy's stream that begins, and then ends.
func Connect(s *Server, id identity.ID, instance string) (disconnect func()) {
	p := s.proxies.connect(id, instance)
	return func() { s.proxies.disconnect(p) }
}

// Proxies returns how each proxy stands.
func Proxies(s *Server) []ProxyStatus { return s.proxyStatus() }
