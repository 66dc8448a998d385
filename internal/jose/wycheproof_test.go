package jose_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/chancery-mesh/chancery/internal/jose"
)

type vectors struct {
	TestGroups []struct {
		Public, Private json.RawMessage
		Tests           []struct {
			ID      int `json:"tcId"`
			Comment string
			JWS     string
			Result  string
		}
	}
}

func load(t *testing.T, name string) vectors {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, name)
	var v vectors
	if err := errors.Join(err, json.Unmarshal(data, &v)); err != nil {
		t.Fatal(err)
	}
	return v
}

// verify accepts jws if a key of the set, or the one key, signed it.
func verify(jwk json.RawMessage, jws string) error {
	o, err := jose.ParseObject(jwk)
	if err != nil {
		return err
	}
	keys := []jose.Object{o}
	if _, set := o["keys"]; set {
		if keys, err = jose.ParseSet(jwk); err != nil {
			return err
		}
	}
	var errs []error
	for _, o := range keys {
		token, err := jose.ParseJWS(jws, 16<<10)
		if err != nil {
			return err
		}
		key, err := jose.ParseKey(o)
		if err == nil {
			err = token.Verify(key)
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("no key: %w", errors.Join(errs...))
}

func TestWycheproof(t *testing.T) {
	t.Parallel()
	// Valid vectors that are refused on purpose, beside all with symmetric keys.
	refused := map[string][]int{
		"json_web_signature_test.json": {
			346, 350, // token says PS384, key says PS256
		},
		"json_web_key_test.json": {},
	}
	for file, exceptions := range refused {
		accepted := 0
		for _, group := range load(t, file).TestGroups {
			key := group.Public
			if key == nil {
				key = group.Private
			}
			// RFC 7520's figure 27 has a typing error.
			key = bytes.Replace(key, []byte("ES521"), []byte("ES512"), 1)
			var kind struct {
				KTY  string
				Keys []struct{ KTY string }
			}
			if err := json.Unmarshal(key, &kind); err != nil {
				t.Fatal(err)
			}
			symmetric := kind.KTY == "oct" || len(kind.Keys) > 0 && kind.Keys[0].KTY == "oct"
			for _, test := range group.Tests {
				err := verify(key, test.JWS)
				want := test.Result == "valid" && !symmetric && !slices.Contains(exceptions, test.ID)
				if (err == nil) != want {
					t.Errorf("%s tc%d (%s, %s): %v", file, test.ID, test.Comment, test.Result, err)
				}
				if err == nil {
					accepted++
				}
			}
		}
		if accepted == 0 {
			t.Errorf("%s: not one vector accepted", file)
		}
	}
}

// Every JWE is refused before anything is decrypted.
func TestWycheproofEncryption(t *testing.T) {
	t.Parallel()
	data, err := fs.ReadFile(wycheproof.TestVectors, "json_web_encryption_test.json")
	var v struct {
		TestGroups []struct{ Tests []struct{ JWE string } }
	}
	if err := errors.Join(err, json.Unmarshal(data, &v)); err != nil {
		t.Fatal(err)
	}
	for _, group := range v.TestGroups {
		for _, test := range group.Tests {
			if _, err := jose.Parse(test.JWE, 64<<10); !errors.Is(err, jose.ErrMalformed) {
				t.Errorf("%.40q: %v", test.JWE, err)
			}
		}
	}
}
