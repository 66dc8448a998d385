package sidecar

import (
	"log/slog"
	"path/filepath"
	"time"

	"github.com/chancery-mesh/chancery/passport"
)

// PassportKeys are passportKeys.
type PassportKeys struct{ pk *passportKeys }

// NewPassportKeys returns those of an agent that just starts.
func NewPassportKeys(dir string, log *slog.Logger) PassportKeys {
	pk := &passportKeys{path: filepath.Join(dir, passportKeyFile), log: log}
	if err := pk.load(); err != nil {
		panic(err)
	}
	return PassportKeys{pk}
}

// LoadPassportKeys says what is wrong with those on the disk.
func LoadPassportKeys(dir string) error {
	return (&passportKeys{path: filepath.Join(dir, passportKeyFile), log: slog.New(slog.DiscardHandler)}).load()
}

func (k PassportKeys) Offer(joins bool) ([][]byte, error) { return k.pk.offer(joins) }
func (k PassportKeys) Endorsed(until time.Time) error     { return k.pk.endorsed(until) }
func (k PassportKeys) Readied(ids []string) error         { return k.pk.readied(ids) }
func (k PassportKeys) Forget() error                      { return k.pk.forget() }
func (k PassportKeys) Signer() *passport.Signer           { return k.pk.signer() }
