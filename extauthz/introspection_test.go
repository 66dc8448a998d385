package extauthz_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"log/slog"
	"math/big"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// answered stands in for an identity provider that answers this.
type answered struct {
	json string
	err  error
}

func (a answered) Introspect(_ context.Context, p *chancerypb.Provider, _, _ string, now time.Time) (*credential.Identity, error) {
	if a.err != nil {
		return nil, a.err
	}
	reader, err := credential.NewIntrospection(p)
	if err != nil {
		return nil, err
	}
	return reader.Identity([]byte(a.json), now)
}

// clientCertificate returns one as Envoy writes it, and its thumbprint.
func clientCertificate(t *testing.T, serial int64) (text, thumbprint string) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return encodeCertificate(der), base64.RawURLEncoding.EncodeToString(sum[:])
}

// What a provider says of a token counts: who it is for, and by whom it may be
// shown. Attack rows C18 and K09.
func TestIntrospection(t *testing.T) {
	t.Parallel()
	certificate, thumbprint := clientCertificate(t, 1)
	another, _ := clientCertificate(t, 2)
	alice := `"active":true,"token_type":"Bearer","aud":"shop-api","sub":"alice","tenant":"acme","client_id":"web"`
	bound := `{` + alice + `,"cnf":{"x5t#S256":"` + thumbprint + `"}}`
	for name, row := range map[string]struct {
		answer      answered
		certificate string
		opaque, jwt outcome
	}{
		"active":                   {answered{json: `{` + alice + `}`}, "", outcome{200, "allowed", ""}, outcome{200, "allowed", ""}},
		"not active":               {answered{json: `{"active":false}`}, "", outcome{401, "token_inactive", invalid}, outcome{401, "token_inactive", invalid}},
		"nobody answers":           {answered{err: errors.New("down")}, "", outcome{503, "introspection_unavailable", ""}, outcome{503, "introspection_unavailable", ""}},
		"bound":                    {answered{json: bound}, certificate, outcome{200, "allowed", ""}, outcome{200, "allowed", ""}},
		"bound, nothing shown":     {answered{json: bound}, "", outcome{401, "token_bound", invalid}, outcome{401, "token_bound", invalid}},
		"bound, another's shown":   {answered{json: bound}, another, outcome{401, "token_bound", invalid}, outcome{401, "token_bound", invalid}},
		"of somebody else":         {answered{json: `{` + alice[:len(alice)-len(`"web"`)] + `"mobile"}`}, "", outcome{200, "allowed", ""}, outcome{401, "credentials_mismatch", invalid}},
		"for somebody else":        {answered{json: `{"active":true,"token_type":"Bearer","aud":"x","sub":"alice"}`}, "", outcome{401, "audience_mismatch", invalid}, outcome{401, "audience_mismatch", invalid}},
		"bound in a way not known": {answered{json: `{` + alice + `,"cnf":{"jkt":"x"}}`}, certificate, outcome{401, "token_bound", invalid}, outcome{401, "token_bound", invalid}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, opaque := range []bool{true, false} {
				f := newFixture(t)
				f.provider.Introspection = &chancerypb.Introspection{Endpoint: "https://idp.test/introspect"}
				want := row.jwt
				if f.provider.Opaque = opaque; opaque {
					f.provider.Jwks, want = nil, row.opaque
				}
				f.gateway.Routes[0].Authentication.Introspect = !opaque
				s, err := extauthz.New(extauthz.Config{
					Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer }, Introspector: row.answer,
				})
				if err != nil {
					t.Fatal(err)
				}
				s.SetState(f.gatewayState(t))
				c := f.atGateway(t)
				c.certificate = row.certificate
				if _, got := check(t, s, c.request()); got != want {
					t.Errorf("opaque %t: got %+v, want %+v", opaque, got, want)
				}
			}
		})
	}
}
