package mesh

import (
	"time"

	"go.yaml.in/yaml/v4"
)

// APIKey returns the API key that a document is of; nil if it is of another kind,
// or faulty.
func (d *Document) APIKey() *APIKey {
	form, ok := d.form.(*apiKeyForm)
	if !ok || len(d.faults) > 0 {
		return nil
	}
	return form.apiKey()
}

// YAML returns a document that says k.
func (k *APIKey) YAML() ([]byte, error) {
	text := apiKeyText{
		Kind: KindAPIKey, Name: k.ID, Client: k.Client, Owner: k.Owner, Tenant: k.Tenant, Scopes: k.Scopes, Hash: k.Hash, Revoked: k.Revoked,
	}
	if !k.Expires.IsZero() {
		text.Expires = k.Expires.UTC().Format(time.RFC3339)
	}
	return yaml.Marshal(text)
}

// apiKeyText is apiKeyForm without what is not set.
type apiKeyText struct {
	Kind    Kind     `yaml:"kind"`
	Name    string   `yaml:"name"`
	Client  string   `yaml:"client"`
	Owner   string   `yaml:"owner"`
	Tenant  string   `yaml:"tenant,omitempty"`
	Scopes  []string `yaml:"scopes,flow,omitempty"`
	Hash    string   `yaml:"hash"`
	Expires string   `yaml:"expires,omitempty"`
	Revoked bool     `yaml:"revoked,omitempty"`
}
