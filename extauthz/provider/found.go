package provider

import (
	"bytes"
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

// published is what a provider publishes, so far as it is needed.
type published struct {
	JWKS json.RawMessage `json:"jwks,omitempty"`
	// KeysURL is where the keys are from.
	KeysURL string `json:"jwksURI,omitempty"`
	// Introspection is the endpoint where it is asked about tokens.
	Introspection string `json:"introspection,omitempty"`
	// problem is what is wrong beside that.
	problem error
}

func (p published) equal(other published) bool {
	return bytes.Equal(p.JWKS, other.JWKS) && p.KeysURL == other.KeysURL && p.Introspection == other.Introspection
}

// found is what was fetched of a provider, and is kept on disk.
type found struct {
	published
	Issuer    string    `json:"issuer"`
	FetchedAt time.Time `json:"fetchedAt"`
}

// publish tells what is known of the provider. The caller holds the lock.
func (k *Keyring) publish(p *provider) {
	p.told = p.found.FetchedAt
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
	if needsKeys(d) {
		m.Jwks = f.JWKS
	}
	if needsEndpoint(d) {
		m.Introspection.Endpoint = f.Introspection
	}
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
	f, err := read(k.file(d.Name), d)
	if err == nil {
		return f
	}
	if !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("saved keys not used", "provider", d.Name, "err", err)
	}
	return found{}
}

func read(path string, d *mesh.IdentityProvider) (f found, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("parse %s: %w", path, err)
	}
	if err := f.check(d); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// check judges by today's rules what was good once.
func (f *found) check(d *mesh.IdentityProvider) (err error) {
	switch {
	case f.Issuer != d.Issuer:
		return fmt.Errorf("it is of issuer %q", f.Issuer)
	case f.FetchedAt.After(time.Now()):
		return fmt.Errorf("it is of the future: %v", f.FetchedAt)
	}
	if needsEndpoint(d) && checkEndpoint(f.Introspection, d) != nil {
		f.Introspection = ""
	}
	if !needsKeys(d) {
		return nil
	}
	if err := checkKeysURL(f.KeysURL, d); err != nil {
		return err
	}
	f.JWKS, _, err = publicKeys(f.JWKS)
	return err
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
