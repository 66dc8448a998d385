package extauthz_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// heap is what is in use once all garbage is gone.
func heap() int {
	runtime.GC()
	runtime.GC() // what had a finalizer
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Whatever anybody sends, and however much of it that is different each time, is
// remembered in a fixed amount of memory, and those who are in order come in.
// Attack row K01: a token of an unknown key asks nobody.
//
//nolint:paralleltest // it measures memory
func TestFloods(t *testing.T) {
	f := newFixture(t)
	users := []*chancerypb.User{{Name: "alice", Password: "$argon2id$v=19$m=7168,t=5,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}
	f.accounts = append(f.accounts,
		&chancerypb.Accounts{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: &chancerypb.APIKeys{}}},
		&chancerypb.Accounts{Of: &chancerypb.Accounts_Users{Users: &chancerypb.Users{Name: "people", Users: users}}})
	for name, demanded := range map[string]*chancerypb.Credentials{
		"key": {ApiKey: true}, "basic": {Basic: "people"}, "certificate": {Certificate: &chancerypb.CertificateRule{Names: []string{"till.test"}}},
	} {
		f.gateway.Routes = append(f.gateway.Routes, &chancerypb.RoutePolicy{
			Name: name, Path: "/" + name, Authentication: &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{demanded}},
		})
	}
	gateway, service := f.server(t, f.gatewayState(t)), f.server(t, f.serviceState(t))
	good, atService := f.atGateway(t), f.atService(t)
	good = good.authorization("Bearer " + f.token(t, map[string]any{"exp": time.Now().Add(time.Hour).Unix()}))
	atService = atService.header("txn-token", f.passport(t, func(p *passport.Passport) { p.ExpiresAt = p.IssuedAt.Add(9 * time.Minute) }))
	at := func(route string) call {
		c := good.authorization()
		c.route, c.path = route, "/"+route
		return c
	}
	header := encodeSegment(`{"alg":"ES256","typ":"at+jwt","kid":"%s"}`)
	claims := encodeSegment(fmt.Sprintf(`{"iss":"https://idp.test","aud":"shop-api","sub":"alice","exp":%d}`, time.Now().Add(time.Hour).Unix()))
	filler := strings.Repeat("a", 2<<10)
	floods := []struct {
		name   string
		n      int
		most   int // MiB that may be kept of them: less than they have
		reason string
		server *extauthz.Server
		make   func(i int) call
	}{
		{"valid tokens", 16_000, 32, "allowed", gateway, func(i int) call {
			return good.authorization("Bearer " + f.token(t, map[string]any{"sub": fmt.Sprint("user-", i), "x": filler}))
		}},
		{"garbage", 20_000, 2, "token_malformed", gateway, func(i int) call { return good.authorization(fmt.Sprint("Bearer ", filler, i)) }},
		{"unknown keys", 20_000, 2, "unknown_key", gateway, func(i int) call {
			return good.authorization("Bearer " + header(fmt.Sprint("kid-", i, filler)) + "." + claims() + "." + strings.Repeat("A", 86))
		}},
		{"API keys", 50_000, 2, "api_key_invalid", gateway, func(i int) call {
			return at("key").header("x-api-key", fmt.Sprintf("chk_%010d_%032d_000000", i, i))
		}},
		{"names", 20_000, 2, "password_throttled", gateway, func(i int) call {
			return at("basic").authorization(basic(fmt.Sprint("user-", i), filler[:500]))
		}},
		{"addresses of one network", 5000, 2, "password_throttled", gateway, func(i int) call {
			c := at("basic").authorization(basic("alice", fmt.Sprint(i)))
			c.ip = fmt.Sprintf("2001:db8::%x", i+1)
			return c
		}},
		{"certificates of clients", 8000, 12, "certificate_name_mismatch", gateway, func(i int) call {
			c := at("certificate")
			c.certificate = encodeCertificate(newCertificate(t, time.Now().Add(time.Hour), fmt.Sprint("spiffe://other.test/", i, filler[:500])))
			return c
		}},
		{"certificates of many names", 1000, 18, "certificate_name_mismatch", gateway, func(i int) call {
			c := at("certificate")
			c.certificate = encodeCertificate(certificateOfNames(t, 1800+i))
			return c
		}},
		{"certificates of callers", 8000, 4, "allowed", service, func(i int) call {
			c := atService
			c.certificate = encodeCertificate(newCertificate(t, time.Now().Add(time.Duration(i+1)*time.Hour), gatewayID))
			return c
		}},
		{"Passports", 12_000, 9, "allowed", service, func(i int) call {
			return atService.header("txn-token", f.passport(t, func(p *passport.Passport) { p.ID = fmt.Sprint("call-", i) }))
		}},
		{"paths", 20_000, 2, "allowed", gateway, func(i int) call {
			c := good
			c.path = fmt.Sprintf("/orders/%d/%s", i, filler)
			return c
		}},
	}
	if _, got := check(t, gateway, good.request()); got.reason != "allowed" {
		t.Fatal(got)
	}
	goroutines := runtime.NumGoroutine()
	for _, flood := range floods {
		others, before := 0, heap()
		for i := range flood.n {
			if _, got := check(t, flood.server, flood.make(i).request()); got.reason != flood.reason {
				others++
			}
		}
		// The first guesses are made, and refused for what they are.
		if others > 250 || others > 0 && flood.reason != "password_throttled" {
			t.Errorf("%s: %d were not answered with %s", flood.name, others, flood.reason)
		}
		grown := heap() - before
		t.Logf("%s: %d KiB", flood.name, grown>>10)
		if grown > flood.most<<20 {
			t.Errorf("%s: %d MiB are kept", flood.name, grown>>20)
		}
		for server, c := range map[*extauthz.Server]call{gateway: good, service: atService} {
			if _, got := check(t, server, c.request()); got.reason != "allowed" {
				t.Errorf("after %s: %+v", flood.name, got)
			}
		}
	}
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
	runtime.KeepAlive(gateway)
	runtime.KeepAlive(service)
}

// encodeSegment returns what encodes a part of a token.
func encodeSegment(format string) func(...any) string {
	return func(args ...any) string { return base64URL(fmt.Sprintf(format, args...)) }
}

// version is one state of the documents with its keys: a key, a tenant and a plan
// that no other version has.
type version struct {
	token    string
	plan     string
	revision string
	state    *extauthz.State
}

// Attack row R07: checks that are made while states come and go are all answered,
// each by one state as a whole.
func TestNoDecisionMixesTwoRevisions(t *testing.T) {
	t.Parallel()
	const versions, workers = 100, 8
	f := newFixture(t)
	var all []version
	for i := range versions {
		all = append(all, f.version(t, i))
	}
	common := f.atGateway(t)
	common.route, common.path = "common", "/common"
	var recorded sync.Map
	s, err := extauthz.New(extauthz.Config{
		Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer },
		Record: func(r *extauthz.Record) error {
			recorded.Store(r.RequestID, r.Revision)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetState(all[0].state)
	done := make(chan struct{})
	var checks atomic.Int64
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			mine := f.atGateway(t)
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if _, got := check(t, s, common.request()); got.reason != "allowed" {
					t.Errorf("what every version allows: %+v", got)
				}
				v := &all[(n*workers+worker)%versions]
				id := fmt.Sprintf("%d-%d", worker, n)
				c := mine.authorization("Bearer "+v.token).header("x-request-id", id)
				response, got := check(t, s, c.request())
				checks.Add(2)
				revision, _ := recorded.LoadAndDelete(id)
				plan := response.GetDynamicMetadata().GetFields()["plan"].GetStringValue()
				switch own := revision == v.revision; {
				case own && (got.reason != "allowed" || plan != v.plan), !own && got.reason != "unknown_key":
					t.Errorf("rules of %v answered %+v, plan %s, to who is for %s", revision, got, plan, v.revision)
				}
			}
		})
	}
	for range 3 {
		for i := range all {
			s.SetState(all[i].state)
			for begun := checks.Load(); checks.Load() < begun+2*workers; {
				runtime.Gosched()
			}
		}
	}
	close(done)
	wg.Wait()
}

func (f *fixture) version(t *testing.T, i int) version {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprint("v", i)
	keys := []jwkset.JWKMarshal{publicJWK(t, &key.PublicKey, name), publicJWK(t, &f.idp.PublicKey, "k1")}
	jwks, err := json.Marshal(jwkset.JWKSMarshal{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	x := newFixture(t)
	x.provider.Jwks = jwks
	x.gateway.Routes[0].Allow = fmt.Sprintf("tenant == '%s' && client.plan == '%s'", name, name)
	x.gateway.Routes = append(x.gateway.Routes, &chancerypb.RoutePolicy{Name: "common", Path: "/common", Authentication: token("staff")})
	x.accounts = []*chancerypb.Accounts{{Of: &chancerypb.Accounts_Clients{Clients: &chancerypb.Clients{
		Clients: []*chancerypb.Client{{Id: "web", Active: true, Plan: name}},
	}}}}
	v := version{plan: name, state: x.gatewayState(t)}
	s, err := extauthz.New(extauthz.Config{
		Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer },
		Record: func(r *extauthz.Record) error {
			v.revision = r.Revision
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetState(v.state)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "https://idp.test", "aud": "shop-api", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix(), "tenant": name, "client_id": "web",
	})
	token.Header["kid"] = name
	if v.token, err = token.SignedString(key); err != nil {
		t.Fatal(err)
	}
	if _, got := check(t, s, f.atGateway(t).authorization("Bearer "+v.token).request()); got.reason != "allowed" {
		t.Fatal(got)
	}
	return v
}

func publicJWK(t *testing.T, key *ecdsa.PublicKey, id string) jwkset.JWKMarshal {
	t.Helper()
	jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id}})
	if err != nil {
		t.Fatal(err)
	}
	return jwk.Marshal()
}

func base64URL(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
