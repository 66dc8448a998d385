package credential_test

import (
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/extauthz/credential"
)

// What is found stands in the request as it was found, and says its kind.
func FuzzFind(f *testing.F) {
	f.Add("Bearer abc", "id", "key", "a=b")
	f.Add(basic("alice", "secret"), "", "", "access_token=x")
	f.Add("bearer a,Bearer b", "a,b", "", "a;access%5ftoken")
	f.Fuzz(func(t *testing.T, authorization, idToken, apiKey, query string) {
		lines := func(name string) []string {
			line := map[string]string{"authorization": authorization, "x-id-token": idToken, "x-api-key": apiKey}[name]
			if line == "" {
				return nil
			}
			return []string{line}
		}
		found, err := credential.Find(lines, query)
		if err != nil {
			return
		}
		_, credentials, _ := strings.Cut(authorization, " ")
		pair, _ := base64.StdEncoding.DecodeString(credentials)
		for kind, row := range map[credential.Kind]struct {
			there bool
			equal bool
		}{
			credential.KindAccessToken: {found.AccessToken != "", found.AccessToken == credentials},
			credential.KindIDToken:     {found.IDToken != "", found.IDToken == idToken},
			credential.KindAPIKey:      {found.APIKey != "", found.APIKey == apiKey},
			credential.KindBasic: {
				found.Basic != credential.Basic{},
				found.Basic.User != "" && found.Basic.Password != "" && string(pair) == found.Basic.User+":"+found.Basic.Password,
			},
		} {
			if found.Kinds.Has(kind) != row.there || row.there && !row.equal {
				t.Errorf("%v in %q, %q, %q: %+v", kind, authorization, idToken, apiKey, found)
			}
		}
		if found.Kinds.Has(credential.KindAccessToken | credential.KindBasic) {
			t.Errorf("two in one header: %+v", found)
		}
	})
}

func FuzzCertificateNames(f *testing.F) {
	f.Add("CN=a,O=b")
	f.Add(`2.5.4.3=\ a\2c+UID=x`)
	f.Add("spiffe://a/b")
	f.Fuzz(func(t *testing.T, name string) {
		names, err := credential.NewCertificateNames([]string{name}, []string{name})
		if (err == nil) != (names != nil) {
			t.Errorf("%q: %v, %v", name, names, err)
		}
	})
}

func FuzzParseCertificate(f *testing.F) {
	good, _ := newCertificate(f, func(*x509.Certificate) {})
	f.Add(good)
	f.Add(strings.ReplaceAll(good, "%0A", "%0D%0A"))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := credential.ParseCertificate(text)
		if (err == nil) != (c != nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}

// An answer that is taken says so in as many words.
func FuzzIntrospection(f *testing.F) {
	i := introspection(f)
	f.Add([]byte(`{"active":true,"token_type":"Bearer","aud":"shop-api","sub":"alice"}`))
	f.Add([]byte(`{"active":false}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		id, err := i.Identity(answer, now)
		if err != nil {
			if id != nil || reason(err) != credential.Reason(err.Error()) {
				t.Errorf("%v, %v", id, err)
			}
			return
		}
		if id.User == "" || !strings.Contains(string(answer), "true") {
			t.Errorf("%q: %+v", answer, id)
		}
	})
}

// No hash that is taken is larger than what its bounds allow.
func FuzzPasswordHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$2b$10$" + strings.Repeat("a", 53))
	f.Fuzz(func(t *testing.T, hash string) {
		_, err := credential.NewUsers("staff", []credential.User{{Name: "alice", Hash: hash}})
		if err == nil && len(hash) > 220 {
			t.Errorf("%q is a hash", hash)
		}
	})
}
