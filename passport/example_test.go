package passport_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/chancery-mesh/chancery/passport"
)

// A gateway mints, a service verifies.
func Example() {
	_, key, _ := ed25519.GenerateKey(nil)
	signer, err := passport.NewSigner(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := signer.Mint(&passport.Passport{
		ID: "req-1", Subject: "alice", Groups: []string{"sales"}, Provider: "staff", Audience: "shop.example",
		Gateway: "spiffe://shop.example/gateway/public", IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	verifier, err := passport.NewVerifier(passport.VerifierConfig{
		TrustDomain: "shop.example",
		Keys: passport.KeySet{signer.KeyID(): {
			Owner: "spiffe://shop.example/gateway/public", Public: signer.Public(), Providers: []string{"staff"},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := verifier.Verify(token)
	fmt.Println(p.Subject, p.Groups, err)
	_, err = verifier.Verify("forged")
	fmt.Println(errors.Is(err, passport.ErrMalformed))
	// Output:
	// alice [sales] <nil>
	// true
}

// A service takes the user from the Passport, and hands it on with its calls.
func ExampleMiddleware() {
	var verifier *passport.Verifier // from NewVerifier
	client := &http.Client{Transport: &passport.Transport{}}

	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := passport.FromContext(r.Context())
		request, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://inventory/items", nil)
		response, err := client.Do(request)
		if err != nil {
			http.Error(w, "inventory is away", http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		fmt.Fprintln(w, p.Subject, response.Status)
	})
	http.Handle("/", passport.Middleware(verifier)(handler))
}
