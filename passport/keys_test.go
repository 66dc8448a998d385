package passport_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/passport"
)

func TestThumbprint(t *testing.T) {
	t.Parallel()
	// RFC 8037 appendix A.3.
	x, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	got, err := passport.Thumbprint(ed25519.PublicKey(x))
	if want := "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; err != nil || got != want {
		t.Errorf("Thumbprint = %q, %v, want %q", got, err, want)
	}
}

func TestKeySetRoundTrip(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	one, two, nobody := newSigner(t, newEd25519(t)), newSigner(t, ec), newSigner(t, newEd25519(t))
	set := passport.KeySet{
		one.KeyID(): {Owner: gateway, Public: one.Public()},
		two.KeyID(): {
			Owner: "spiffe://shop.example/gateway/partner", Public: two.Public(),
			Until: now, Providers: []string{"partners", "staff"}, Tenants: []string{"acme"},
		},
		nobody.KeyID(): {Owner: gateway, Public: nobody.Public(), Until: time.Unix(0, 0), Tenants: []string{}},
	}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	got, err := passport.ParseKeySet(data, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(set, got); diff != "" {
		t.Errorf("parsed set differs (-want +got):\n%s", diff)
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	s := newSigner(t, newEd25519(t))
	data, err := passport.EncodeKey(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	id, key, err := passport.ParseKey(data, gateway)
	if err != nil || id != s.KeyID() || !cmp.Equal(key, passport.Key{Owner: gateway, Public: s.Public()}) {
		t.Errorf("ParseKey = %q, %v, %v", id, key, err)
	}
	for name, bad := range map[string]string{
		"no kid":     strings.Replace(string(data), `"kid"`, `"kit"`, 1),
		"other kid":  strings.Replace(string(data), s.KeyID(), "k1", 1),
		"private":    strings.Replace(string(data), `"kid"`, `"d":"AA","kid"`, 1),
		"encryption": strings.Replace(string(data), `"sig"`, `"enc"`, 1),
		"owner":      strings.Replace(string(data), `"kid"`, `"owner":"spiffe://x/gateway/y","kid"`, 1),
		"exp":        strings.Replace(string(data), `"kid"`, `"exp":"1","kid"`, 1),
		"exp past":   strings.Replace(string(data), `"kid"`, `"exp":-1,"kid"`, 1),
		"exp null":   strings.Replace(string(data), `"kid"`, `"exp":null,"kid"`, 1),
		"providers":  strings.Replace(string(data), `"kid"`, `"providers":"staff","kid"`, 1),
		"tenants":    strings.Replace(string(data), `"kid"`, `"tenants":"acme","kid"`, 1),
		"no tenants": strings.Replace(string(data), `"kid"`, `"tenants":null,"kid"`, 1),
		"owner 1":    strings.Replace(string(data), `"kid"`, `"owner":1,"kid"`, 1),
		"array":      "[" + string(data) + "]",
		"RSA":        `{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"k"}`,
	} {
		if _, _, err := passport.ParseKey([]byte(bad), gateway); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseKeySetRefuses(t *testing.T) {
	t.Parallel()
	data, err := passport.EncodeKey(newSigner(t, newEd25519(t)).Public())
	if err != nil {
		t.Fatal(err)
	}
	key := string(data)
	for name, row := range map[string]struct{ jwks, owner string }{
		"not JSON":     {`{`, gateway},
		"no keys":      {`{}`, gateway},
		"not objects":  {`{"keys":[1]}`, gateway},
		"one bad":      {`{"keys":[` + key + `,{}]}`, gateway},
		"twice":        {`{"keys":[` + key + `,` + key + `]}`, gateway},
		"owner nobody": {`{"keys":[` + key + `]}`, ""},
		"owner odd":    {`{"keys":[` + key + `]}`, "gateway/public"},
	} {
		if set, err := passport.ParseKeySet([]byte(row.jwks), row.owner); err == nil {
			t.Errorf("%s: %v", name, set)
		}
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	encode := func(s *passport.Signer) []byte {
		t.Helper()
		data, err := json.Marshal(passport.KeySet{s.KeyID(): {Owner: gateway, Public: s.Public()}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	if _, err := passport.OpenFile(path); err == nil {
		t.Error("opened a file that does not exist")
	}
	one, two := newSigner(t, newEd25519(t)), newSigner(t, newEd25519(t))
	synctest.Test(t, func(t *testing.T) {
		write(encode(one))
		f, err := passport.OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		expect := func(s *passport.Signer, want bool) {
			t.Helper()
			if _, ok := f.Key(s.KeyID()); ok != want {
				t.Errorf("key found: %v, want %v", ok, want)
			}
		}
		expect(one, true)
		write(encode(two))
		expect(one, true) // not looked for yet
		expect(two, true) // a new key is found at once
		expect(one, false)

		write([]byte(`{"keys":[{}]}`))
		time.Sleep(time.Second)
		expect(two, true)
		if f.Err() == nil {
			t.Error("a broken file is not told")
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		expect(two, true)
		write(encode(one))
		time.Sleep(time.Second)
		expect(one, true)
		if err := f.Err(); err != nil {
			t.Error(err)
		}
		// In place, of the same length.
		if err := os.WriteFile(path, encode(two), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		expect(two, true)
	})
}
