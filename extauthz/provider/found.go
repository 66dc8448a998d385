package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
)

// found is what was fetched of a provider, and is kept on disk.
type found struct {
	Issuer    string          `json:"issuer"`
	JWKS      json.RawMessage `json:"jwks"`
	FetchedAt time.Time       `json:"fetchedAt"`
}

// publish tells what is known of the provider. The caller holds the lock.
func (k *Keyring) publish(p *provider) {
	p.published = p.found.FetchedAt
	m := message(p.document, p.found)
	if m.UsableUntil != nil {
		k.metrics.fetched.WithLabelValues(m.Name).Set(float64(p.found.FetchedAt.Unix()))
		k.metrics.usable.WithLabelValues(m.Name).Set(float64(m.UsableUntil.GetSeconds()))
	}
	k.cfg.Changed(m.Name, m)
}

// message is what verifiers are told.
func message(d *mesh.IdentityProvider, f found) *chancerypb.Provider {
	m := translate.Provider(d)
	m.Jwks = f.JWKS
	if !f.FetchedAt.IsZero() {
		m.FetchedAt = timestamppb.New(f.FetchedAt)
		m.UsableUntil = timestamppb.New(f.FetchedAt.Add(d.KeysMaxAge))
	}
	return m
}

func (k *Keyring) file(name string) string { return filepath.Join(k.cfg.Dir, name+".json") }

// save keeps what was found of a provider.
func (k *Keyring) save(p *provider) error {
	if k.cfg.Dir == "" {
		return nil
	}
	data, err := json.Marshal(p.found)
	if err != nil {
		return err
	}
	return atomicfile.Write(k.file(p.document.Name), data, 0o600)
}

// load returns what was last saved of a provider, or nothing.
func (k *Keyring) load(d *mesh.IdentityProvider) found {
	if k.cfg.Dir == "" {
		return found{}
	}
	f, err := read(k.file(d.Name), d.Issuer)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("saved keys not used", "provider", d.Name, "err", err)
	}
	return f
}

func read(path, issuer string) (found, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return found{}, err
	}
	var f found
	if err := json.Unmarshal(data, &f); err != nil {
		return found{}, fmt.Errorf("parse %s: %w", path, err)
	}
	if f.Issuer != issuer {
		return found{}, fmt.Errorf("%s is of issuer %q", path, f.Issuer)
	}
	if f.FetchedAt.After(time.Now()) {
		return found{}, fmt.Errorf("%s is of the future: %v", path, f.FetchedAt)
	}
	// What was good once is judged by today's rules.
	if f.JWKS, _, err = publicKeys(f.JWKS); err != nil {
		return found{}, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// keyIDs returns the ids in a JWK Set of publicKeys, sorted.
func keyIDs(jwks []byte) []string {
	var set struct {
		Keys []struct{ Kid string }
	}
	_ = json.Unmarshal(jwks, &set) // there may be none yet
	var ids []string
	for _, key := range set.Keys {
		if key.Kid != "" {
			ids = append(ids, key.Kid)
		}
	}
	slices.Sort(ids)
	return ids
}
