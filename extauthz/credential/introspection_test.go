package credential_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

func introspection(t testing.TB) *credential.Introspection {
	t.Helper()
	p := provider(t)
	p.Jwks = nil
	i, err := credential.NewIntrospection(p)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestIntrospection(t *testing.T) {
	t.Parallel()
	id, err := introspection(t).Identity([]byte(`{"active":true,"token_type":"bearer","iss":"https://idp.test/","aud":["shop-api"],`+
		`"sub":"alice","client_id":"web","username":"a","scope":"read write","tenant":"acme","exp":1800000300,"iat":1800000000,"jti":"j"}`), now)
	want := &credential.Identity{
		Kind: credential.KindAccessToken, Provider: "staff", User: "alice", Tenant: "acme", Client: "web", Scopes: []string{"read", "write"},
		Issuer: "https://idp.test/", Subject: "alice", ID: "j", IssuedAt: now, ValidUntil: now.Add(310 * time.Second),
	}
	if diff := cmp.Diff(want, id, unbound); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// Attack row K09, so far as it is about an answer.
func TestIntrospectionRefuses(t *testing.T) {
	t.Parallel()
	i := introspection(t)
	const rest = `"token_type":"Bearer","aud":"shop-api","sub":"alice"`
	for name, row := range map[string]struct {
		answer string
		want   credential.Reason
	}{
		"least":                           {`{"active":true,` + rest + `}`, "accepted"},
		"K09 inactive":                    {`{"active":false,` + rest + `}`, credential.Inactive},
		"K09 active a string":             {`{"active":"true",` + rest + `}`, credential.Inactive},
		"K09 active a number":             {`{"active":1,` + rest + `}`, credential.Inactive},
		"K09 active null":                 {`{"active":null,` + rest + `}`, credential.Inactive},
		"K09 active in other case":        {`{"Active":true,` + rest + `}`, credential.Inactive},
		"K09 active twice":                {`{"active":false,"active":true,` + rest + `}`, credential.Malformed},
		"K09 empty":                       {`{}`, credential.Inactive},
		"K09 nothing":                     {``, credential.Malformed},
		"K09 HTML":                        {`<html>`, credential.Malformed},
		"K09 a list":                      {`[{"active":true}]`, credential.Malformed},
		"K09 true":                        {`true`, credential.Malformed},
		"K09 expired":                     {`{"active":true,"exp":1799999989,` + rest + `}`, credential.Expired},
		"K09 exp a string":                {`{"active":true,"exp":"1800000300",` + rest + `}`, credential.Malformed},
		"K09 exp null":                    {`{"active":true,"exp":null,` + rest + `}`, credential.Malformed},
		"K09 not yet":                     {`{"active":true,"nbf":1800000011,` + rest + `}`, credential.NotYetValid},
		"K09 issued in the future":        {`{"active":true,"iat":1800000011,"exp":1800000300,` + rest + `}`, credential.NotYetValid},
		"K09 other issuer":                {`{"active":true,"iss":"https://evil.test/",` + rest + `}`, credential.WrongIssuer},
		"K09 issuer null":                 {`{"active":true,"iss":null,` + rest + `}`, credential.WrongIssuer},
		"K09 other audience":              {strings.Replace(`{"active":true,`+rest+`}`, "shop-api", "other", 1), credential.WrongAudience},
		"K09 no audience":                 {`{"active":true,"token_type":"Bearer","sub":"alice"}`, credential.WrongAudience},
		"K09 nobody":                      {`{"active":true,"token_type":"Bearer","aud":"shop-api"}`, credential.BadClaim},
		"refresh token":                   {`{"active":true,"aud":"shop-api","sub":"alice"}`, credential.WrongType},
		"refresh token of Keycloak":       {`{"active":true,"typ":"Refresh",` + rest + `}`, credential.WrongType},
		"refresh token of Hydra":          {`{"active":true,"token_use":"refresh_token",` + rest + `}`, credential.WrongType},
		"access token of Hydra":           {`{"active":true,"token_use":"access_token",` + rest + `}`, "accepted"},
		"access token of older Keycloaks": {`{"active":true,"typ":"Bearer","aud":"shop-api","sub":"alice"}`, "accepted"},
		"ID token":                        {`{"active":true,"typ":"ID","aud":"shop-api","sub":"alice"}`, credential.WrongType},
		"DPoP":                            {strings.Replace(`{"active":true,`+rest+`}`, "Bearer", "DPoP", 1), credential.WrongType},
		"C18 bound to a DPoP key":         {`{"active":true,"cnf":{"jkt":"A"},` + rest + `}`, credential.Bound},
	} {
		id, err := i.Identity([]byte(row.answer), now)
		if reason(err) != row.want || (err == nil) != (id != nil) {
			t.Errorf("%s: %v, %v, want %v", name, id, err, row.want)
		}
	}
	thumbprint := strings.Repeat("A", 43)
	id, err := i.Identity(fmt.Appendf(nil, `{"active":true,"cnf":{"x5t#S256":%q},%s}`, thumbprint, rest), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, peer := range []*credential.Certificate{nil, certificate(t, func(*x509.Certificate) {})} {
		if _, err := id.ShownBy(peer); !errors.Is(err, credential.Bound) {
			t.Errorf("C18 bound to another certificate: %v", err)
		}
	}
	if _, err := credential.NewIntrospection(&chancerypb.Provider{Name: "staff", Issuer: "https://idp.test/"}); err == nil {
		t.Error("without audiences: accepted")
	}
}

// What tells of no end ends when what would revoke it does.
func TestIntrospectedTokensWithoutEnd(t *testing.T) {
	t.Parallel()
	p := provider(t)
	p.MaxTokenLifetime = durationpb.New(time.Hour)
	i, err := credential.NewIntrospection(p)
	if err != nil {
		t.Fatal(err)
	}
	for issued, want := range map[time.Time]error{
		now.Add(-30 * time.Minute):    nil,
		now.Add(-30 * 24 * time.Hour): credential.TooLong,
	} {
		id, err := i.Identity(fmt.Appendf(nil, `{"active":true,"token_type":"Bearer","aud":"shop-api","sub":"alice","iat":%d}`, issued.Unix()), now)
		if !errors.Is(err, want) || want == nil && !id.ValidUntil.After(now) {
			t.Errorf("issued at %v: %v, %v", issued, id, err)
		}
	}
}
