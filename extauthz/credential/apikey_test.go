package credential_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

func apiKeys(t testing.TB, keys ...credential.APIKey) *credential.APIKeys {
	t.Helper()
	k, err := credential.NewAPIKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAPIKey(t *testing.T) {
	t.Parallel()
	id, key := credential.GenerateAPIKey()
	if !regexp.MustCompile(`^chk_[0-9A-Za-z]{10}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}$`).MatchString(key) || key[4:14] != id {
		t.Errorf("%s has id %s", key, id)
	}
	ends := now.Add(time.Hour)
	keys := apiKeys(t, credential.APIKey{
		ID: id, Hash: credential.HashAPIKey(key), Owner: "alice", Client: "batch", Tenant: "acme",
		Scopes: []string{"read"}, Expires: ends,
	})
	got, err := keys.Verify(key, now)
	want := &credential.Identity{
		Kind: credential.KindAPIKey, User: "alice", Client: "batch", Tenant: "acme", Scopes: []string{"read"}, ID: id, ValidUntil: ends,
	}
	if diff := cmp.Diff(want, got, unbound); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// Attack rows B07, B08 and B09, so far as they are about a key itself.
func TestAPIKeyRefused(t *testing.T) {
	t.Parallel()
	var list []credential.APIKey
	add := func(change func(*credential.APIKey)) (key string) {
		id, key := credential.GenerateAPIKey()
		k := credential.APIKey{ID: id, Hash: credential.HashAPIKey(key), Owner: "alice"}
		change(&k)
		list = append(list, k)
		return key
	}
	good := add(func(*credential.APIKey) {})
	expired := add(func(k *credential.APIKey) { k.Expires = now })
	disabled := add(func(k *credential.APIKey) { k.Disabled = true })
	other := add(func(k *credential.APIKey) { k.Tenant = "other" })
	_, unknown := credential.GenerateAPIKey()
	keys := apiKeys(t, list...)
	if _, err := keys.Verify(good, now); err != nil {
		t.Fatal(err)
	}
	flip := func(s string) string {
		if upper := strings.ToUpper(s); upper != s {
			return upper
		}
		return strings.ToLower(s)
	}
	for name, row := range map[string]struct {
		key  string
		want credential.Reason
	}{
		"B07 prefix only":         {"chk_", credential.BadKey},
		"B07 prefix and id":       {good[:14], credential.BadKey},
		"B07 without checksum":    {good[:47], credential.BadKey},
		"B07 one short":           {good[:len(good)-1], credential.BadKey},
		"B07 empty":               {"", credential.BadKey},
		"B07 case of secret":      {good[:15] + flip(good[15:47]) + good[47:], credential.BadKey},
		"B07 case of prefix":      {"CHK_" + good[4:], credential.BadKey},
		"B07 trailing newline":    {good + "\n", credential.BadKey},
		"B07 10 KiB":              {good + strings.Repeat("a", 10<<10), credential.BadKey},
		"B07 expired":             {expired, credential.KeyExpired},
		"B07 of another's id":     {"chk_" + other[4:14] + good[14:], credential.BadKey},
		"B07 revoked":             {unknown, credential.BadKey},
		"B09 disabled":            {disabled, credential.KeyDisabled},
		"B08 expired, not proved": {expired[:15] + good[15:], credential.BadKey},
	} {
		if id, err := keys.Verify(row.key, now); !errors.Is(err, row.want) || id != nil {
			t.Errorf("%s: %v, %v, want %v", name, id, err, row.want)
		}
	}
	if _, err := apiKeys(t).Verify(good, now); !errors.Is(err, credential.BadKey) {
		t.Errorf("without any key: %v", err)
	}
}

func TestNewAPIKeysRefuses(t *testing.T) {
	t.Parallel()
	id, key := credential.GenerateAPIKey()
	for name, change := range map[string]func(*credential.APIKey){
		"no id":      func(k *credential.APIKey) { k.ID = "" },
		"long id":    func(k *credential.APIKey) { k.ID += "a" },
		"id":         func(k *credential.APIKey) { k.ID = "../../../e" },
		"no hash":    func(k *credential.APIKey) { k.Hash = "" },
		"key itself": func(k *credential.APIKey) { k.Hash = key },
		"short hash": func(k *credential.APIKey) { k.Hash = k.Hash[:40] },
		"no owner":   func(k *credential.APIKey) { k.Owner = "" },
	} {
		k := credential.APIKey{ID: id, Hash: credential.HashAPIKey(key), Owner: "alice"}
		twice := k
		change(&k)
		_, err := credential.NewAPIKeys([]credential.APIKey{k})
		if err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := credential.NewAPIKeys([]credential.APIKey{twice, twice}); err == nil {
			t.Error("stands twice: accepted")
		}
	}
}
