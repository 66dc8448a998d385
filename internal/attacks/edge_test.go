package attacks_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/internal/lockedbuffer"
	"github.com/chancery-mesh/chancery/passport"
)

const trustDomain = "api.test"

// edge is a gateway: Envoy, the decision point beside it, and the service behind
// it.
type edge struct {
	*envoytest.Envoy
	fixture
	t        *testing.T
	agent    *envoytest.Agent
	upstream *envoytest.Upstream
	server   *extauthz.Server
	address  string
	idp      *ecdsa.PrivateKey
	passport *passport.Verifier
	// clients signs the certificates of clients; edge only.
	clients *envoytest.Authority

	log     lockedbuffer.Buffer
	mu      sync.Mutex
	records []string
	secrets []string
}

// start starts the gateway of that name.
func start(t *testing.T, gateway string) *edge {
	t.Helper()
	e := &edge{fixture: compile(t), t: t, agent: envoytest.NewAgent(t, "test")}
	e.secrets = []string{e.apiKey, e.password}
	e.decide(gateway)
	workloads := envoytest.NewAuthority(t)
	e.upstream = envoytest.NewUpstream(t, workloads.Server("spiffe://"+trustDomain+"/service/shop"))
	resources := envoy.Gateway(e.Mesh, e.Gateway(gateway))
	for _, r := range resources {
		e.agent.Set(r.TypeURL, r.Name, envoy.Localize(r.Message, envoy.Local{Inbound: netip.MustParseAddrPort("127.0.0.1:0")}))
	}
	for _, name := range envoy.EndpointNames(resources) {
		e.agent.Set(resourcev3.EndpointType, name, envoy.Endpoints(name, true, []discovery.Instance{
			{ID: "1", Mesh: e.upstream.Address(), Weight: 1, Health: discovery.Passing},
		}))
	}
	e.serveSecrets(workloads, "spiffe://"+trustDomain+"/gateway/"+gateway)
	e.agent.Push()
	e.Envoy = envoytest.Start(t, envoy.Bootstrap(envoy.BootstrapConfig{
		NodeID: "test", Cluster: "test", Socket: e.agent.Socket, AdminSocket: filepath.Join(e.agent.Dir, "admin.sock"),
	}))
	e.address = e.Address("gateway")
	return e
}

func (e *edge) serveSecrets(workloads *envoytest.Authority, spiffeID string) {
	e.t.Helper()
	pair := func(name string, certificate tls.Certificate) {
		chain, key := envoytest.PEM(e.t, certificate)
		e.agent.Secret(envoy.KeyPair(name, chain, key))
	}
	pair(envoy.SecretSVID, workloads.Certificate(spiffeID))
	bundle, err := envoy.TrustBundle(workloads.Roots(), workloads.CRL())
	if err != nil {
		e.t.Fatal(err)
	}
	e.agent.Secret(bundle)
	e.clients = envoytest.NewAuthority(e.t)
	pair(envoy.CertificateSecret("edge"), workloads.Issue(func(c *x509.Certificate) { c.DNSNames = []string{"api.test"} }))
	e.agent.Secret(envoy.ClientTrust(envoy.TrustSecret("clients"), e.clients.Roots()))
}

// decide puts the decision point beside Envoy.
func (e *edge) decide(gateway string) {
	e.t.Helper()
	var err error
	if e.idp, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		e.t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		e.t.Fatal(err)
	}
	signer, err := passport.NewSigner(private)
	if err != nil {
		e.t.Fatal(err)
	}
	owner := "spiffe://" + trustDomain + "/gateway/" + gateway
	policy := translate.Gateway(e.Mesh, e.Gateway(gateway))
	e.passport, err = passport.NewVerifier(passport.VerifierConfig{TrustDomain: trustDomain, Keys: passport.KeySet{
		signer.KeyID(): {Owner: owner, Public: signer.Public(), Providers: translate.MayVouch(e.Gateway(gateway))},
	}})
	if err != nil {
		e.t.Fatal(err)
	}
	keeper := decisions.New(decisions.Config{Key: make([]byte, 32)})
	e.server, err = extauthz.New(extauthz.Config{
		Logger: slog.New(slog.NewJSONHandler(&e.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Signer: func() *passport.Signer { return signer },
		Record: func(r *extauthz.Record) error { return e.keep(keeper, r) },
	})
	if err != nil {
		e.t.Fatal(err)
	}
	rules, err := extauthz.Compile(policy)
	if err != nil {
		e.t.Fatal(err)
	}
	e.server.SetState(e.state(rules))
	e.agent.Authorize(func(r *authv3.CheckRequest) *authv3.CheckResponse {
		response, err := e.server.Check(e.t.Context(), r)
		if err != nil {
			e.t.Errorf("check: %v", err)
		}
		return response
	})
}

// revokedID is the `jti` of a token that was revoked.
const revokedID = "stolen"

// state is what the gateway decides by, with keys of both identity providers.
func (e *edge) state(rules *extauthz.Rules) *extauthz.State {
	e.t.Helper()
	jwk, err := jwkset.NewJWKFromKey(&e.idp.PublicKey, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "k1"}})
	if err != nil {
		e.t.Fatal(err)
	}
	jwks, err := json.Marshal(jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{jwk.Marshal()}})
	if err != nil {
		e.t.Fatal(err)
	}
	revoked, err := revocation.New(&chancerypb.Revocations{Entries: []*chancerypb.Revocation{{
		Id: "1", Whose: &chancerypb.Revocation_Token{Token: revokedID},
		Before: timestamppb.New(time.Now().Add(time.Hour)), Expires: timestamppb.New(time.Now().Add(2 * time.Hour)),
	}}})
	if err != nil {
		e.t.Fatal(err)
	}
	keys := extauthz.Keys{Accounts: slices.Collect(maps.Values(translate.Accounts(e.Mesh))), Revocations: revoked}
	for _, p := range e.Providers {
		message := translate.Provider(p)
		message.Jwks, message.UsableUntil = jwks, timestamppb.New(time.Now().Add(time.Hour))
		keys.Providers = append(keys.Providers, message)
	}
	state, err := rules.With(keys)
	if err != nil {
		e.t.Fatal(err)
	}
	return state
}

// keep keeps a record as the log and the ring would.
func (e *edge) keep(keeper *decisions.Keeper, r *extauthz.Record) error {
	explained, err := keeper.Explain(r)
	if err != nil {
		return err
	}
	text, err := json.Marshal(explained)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.records = append(e.records, string(text))
	return nil
}

// token returns an access token of idp1 for alice, with some claims changed.
func (e *edge) token(changes ...any) string {
	e.t.Helper()
	claims := jwt.MapClaims{
		"iss": "https://idp1.test", "aud": "svc-a", "sub": "alice", "client_id": "web", "tenant": "acme", "groups": []string{"sales"},
		"iat": time.Now().Unix(), "exp": time.Now().Add(10 * time.Minute).Unix(),
	}
	typ := "at+jwt"
	for i := 0; i < len(changes); i += 2 {
		switch name, value := changes[i].(string), changes[i+1]; {
		case name == "typ":
			typ = value.(string)
		case value == nil:
			delete(claims, name)
		default:
			claims[name] = value
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"], token.Header["typ"] = "k1", typ
	signed, err := token.SignedString(e.idp)
	if err != nil {
		e.t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.secrets = append(e.secrets, strings.Split(signed, ".")[1:]...)
	return signed
}

func (e *edge) admin() string { return e.token("sub", "root", "groups", []string{"admins"}) }

// seen is what has been seen so far, to tell what one request adds.
type seen struct{ received, checks, records int }

func (e *edge) seen() seen {
	e.mu.Lock()
	defer e.mu.Unlock()
	return seen{len(e.upstream.Received()), len(e.agent.Checks()), len(e.records)}
}

// settled is seen when nothing more comes: what breaks off within its body Envoy
// refuses while its check may still be on its way.
func (e *edge) settled() seen {
	for last := e.seen(); ; {
		time.Sleep(50 * time.Millisecond)
		now := e.seen()
		if now == last {
			return now
		}
		last = now
	}
}

// safe is what may come of an attack.
type safe struct {
	// refused are statuses with which nothing gets through; 0 is a connection that
	// is closed without an answer.
	refused []int
	// allowed lets the request through as well, or alone; it is then user's, or
	// nobody's.
	allowed bool
	user    string
}

// clientErrors are those that Envoy and the decision point refuse with.
var clientErrors = []int{0, 400, 401, 403, 404, 413, 414, 421, 426, 431}

func refusedWith(statuses ...int) safe { return safe{refused: statuses} }

// judge looks at what one request came to that got status.
func (e *edge) judge(name string, before seen, status int, want safe) {
	e.t.Helper()
	after := e.seen()
	received, checks, records := after.received-before.received, after.checks-before.checks, after.records-before.records
	switch {
	case status == http.StatusOK && want.allowed:
		if received != 1 {
			e.t.Errorf("%s: allowed, and the service saw %d requests", name, received)
		} else {
			e.judgeIdentity(name, e.upstream.Received()[before.received].Header, want.user)
		}
	case !slices.Contains(want.refused, status):
		e.t.Errorf("%s: status %d", name, status)
	case received != 0:
		e.t.Errorf("%s: refused with %d, and the service saw %+v", name, status, e.upstream.Received()[before.received:])
	}
	if records != checks || checks > 1 {
		e.t.Errorf("%s: %d checks, %d records", name, checks, records)
	}
	e.judgeSecrets(name, before)
}

// judgeIdentity looks at what tells the service who the user is.
func (e *edge) judgeIdentity(name string, header http.Header, user string) {
	e.t.Helper()
	for _, credential := range []string{"Authorization", "X-Id-Token", "X-Api-Key"} {
		if header.Get(credential) != "" && user != "" {
			e.t.Errorf("%s: the service got %s", name, credential)
		}
	}
	for key := range header {
		folded := strings.Map(func(r rune) rune {
			if r == '-' || r == '_' || r == '.' {
				return -1
			}
			return r
		}, strings.ToLower(key))
		if folded == "txntoken" && key != "Txn-Token" {
			e.t.Errorf("%s: the service got %s", name, key)
		}
	}
	tokens := header.Values("Txn-Token")
	switch {
	case user == "" && len(tokens) > 0:
		e.t.Errorf("%s: nobody's request has a Passport", name)
	case user == "":
	case len(tokens) != 1:
		e.t.Errorf("%s: %d Passports", name, len(tokens))
	default:
		p, err := e.passport.Verify(tokens[0])
		if err != nil || p.Subject != user || p.Tenant != "acme" {
			e.t.Errorf("%s: Passport %+v, %v", name, p, err)
		}
	}
}

// judgeSecrets looks for secrets in the records, which are one line each, and in
// the log.
func (e *edge) judgeSecrets(name string, before seen) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, secret := range e.secrets {
		for _, record := range e.records[before.records:] {
			if strings.Contains(record, secret) {
				e.t.Errorf("%s: a secret is in the record %s", name, record)
			}
		}
	}
	for line := range strings.Lines(e.log.String()) {
		for _, secret := range e.secrets {
			if strings.Contains(line, secret) {
				e.t.Errorf("%s: a secret is in the log: %s", name, line)
			}
		}
	}
}

// lastRecord is the last decision.
func (e *edge) lastRecord() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.records) == 0 {
		return ""
	}
	return e.records[len(e.records)-1]
}
