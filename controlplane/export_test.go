package controlplane

import (
	"encoding/json"
	"log/slog"
	"time"

	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// Parts that are tested on their own.
var (
	Debounce   = debounce
	Mentions   = mentions
	PublicKeys = publicKeys
)

// Their constants.
const (
	PushLead        = pushLead
	PushGap         = pushGap
	KeysEvery       = keysEvery
	ForgetAfter     = forgetAfter
	MaxPassportKeys = maxPassportKeys
)

// PassportKeys are passportKeys.
type PassportKeys struct{ *passportKeys }

// OpenPassportKeys is openPassportKeys.
func OpenPassportKeys(path string) (PassportKeys, error) {
	pk, err := openPassportKeys(path, slog.New(slog.DiscardHandler))
	return PassportKeys{pk}, err
}

// Use, Endorse and Expire are use, endorse and expire.
func (pk PassportKeys) Use(trustDomain string, gateways []string) { pk.use(trustDomain, gateways) }

func (pk PassportKeys) Endorse(gateway string, jwk []byte, until time.Time) error {
	return pk.endorse(gateway, jwk, until)
}

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
