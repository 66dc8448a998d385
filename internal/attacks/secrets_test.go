package attacks_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/extauthz/introspection"
	"github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/idptest"
	"github.com/chancery-mesh/chancery/internal/lockedbuffer"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

// telltale is a decision point of which everything is kept that it tells anybody:
// logs, metrics, records, explanations, answers.
type telltale struct {
	t       *testing.T
	idp     *idptest.Fake
	server  *extauthz.Server
	keeper  *decisions.Keeper
	ring    *audit.Ring
	metrics *prometheus.Registry
	logFile string
	told    lockedbuffer.Buffer
	secrets map[string]string
}

// secret makes s, and whatever of it is telling by itself, a secret.
func (x *telltale) secret(name, s string) string {
	x.secrets[name] = s
	for i, part := range strings.FieldsFunc(s, func(r rune) bool { return r == '.' || r == '_' || r == ':' || r == ' ' }) {
		if len(part) >= 12 {
			x.secrets[fmt.Sprint(name, ", part ", i)] = part[:min(len(part), 20)] // the rest may be cut off
		}
	}
	return s
}

func (x *telltale) tell(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		x.t.Fatal(err)
	}
	fmt.Fprintf(&x.told, "%s\n%+v\n", text, v)
}

// readsAll are rules that read whatever a secret may be in, and do not allow.
const readsAll = `request.headers['authorization'][0] == 'x' || request.query['q'][0] == 'x' || request.target == 'x' || request.body.secret == 'x' ||
	size(request.headers) == 99 || size(request.query) == 99 || request.body == 'x' || user.id == 'x'`

func (x *telltale) gateway() *chancerypb.Policy {
	p := &chancerypb.Policy{
		Name: "gateway/public", TrustDomain: trustDomain, Providers: x.providers(),
		Minting: &chancerypb.Minting{Lifetime: durationpb.New(time.Minute)},
	}
	for path, demanded := range map[string]*chancerypb.Credentials{
		"token": {AccessToken: "fake"}, "both": {AccessToken: "fake", IdToken: "fake"}, "opaque": {AccessToken: "opaque"}, "key": {ApiKey: true},
		"basic": {Basic: "people"}, "rule": {AccessToken: "fake"}, "bind": {AccessToken: "fake"},
	} {
		r := &chancerypb.RoutePolicy{Name: path, Path: "/" + path, Authentication: &chancerypb.Authentication{AnyOf: []*chancerypb.Credentials{demanded}}}
		switch path {
		case "rule":
			r.Allow, r.MaxBody = readsAll, 1000
		case "bind":
			r.Bind = map[string]string{"header": "request.headers['authorization'][0]"}
		}
		p.Routes = append(p.Routes, r)
	}
	return p
}

func startTelltale(t *testing.T) *telltale {
	t.Helper()
	x := &telltale{t: t, idp: idptest.NewFake(t), metrics: prometheus.NewRegistry(), ring: audit.NewRing(10_000, 64<<20), secrets: map[string]string{}}
	logger := slog.New(slog.NewJSONHandler(&x.told, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
	x.logFile = filepath.Join(t.TempDir(), "decisions.jsonl")
	file, err := audit.NewFile(audit.FileConfig{Path: x.logFile, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.NewDecisionLog(audit.DecisionLogConfig{Sink: file, Logger: logger, Registerer: x.metrics})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- log.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	x.keeper = decisions.New(decisions.Config{Log: log, Ring: x.ring, Key: make([]byte, 32)})
	x.secret("client secret", idptest.Secret(idptest.APIClient))
	introspector, err := introspection.New(introspection.Config{
		Secret: func(string) (string, error) { return idptest.Secret(idptest.APIClient), nil }, Logger: logger, Registerer: x.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := passport.NewSigner(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	x.server, err = extauthz.New(extauthz.Config{
		Logger: logger, Registerer: x.metrics, Signer: func() *passport.Signer { return signer }, Introspector: introspector, Record: x.keeper.Record,
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *telltale) providers() []*chancerypb.Provider {
	fake := translate.Provider(x.idp.Document())
	fake.Jwks, fake.UsableUntil = x.idp.JWKS(), timestamppb.New(time.Now().Add(time.Hour))
	fake.Introspection.Endpoint = x.idp.URL + idptest.Introspection
	opaque := translate.Provider(x.idp.Document())
	opaque.Name, opaque.Opaque, opaque.Introspection = "opaque", true, fake.GetIntrospection()
	return []*chancerypb.Provider{fake, opaque}
}

func (x *telltale) keys(accounts ...*chancerypb.Accounts) extauthz.Keys {
	accounts = append(accounts, &chancerypb.Accounts{Of: &chancerypb.Accounts_Clients{Clients: &chancerypb.Clients{}}})
	return extauthz.Keys{Providers: x.providers(), Accounts: accounts, Revocations: &revocation.Index{}}
}

// check decides about a request to a route, keeps all that is told of it, and
// says the same again as an explanation. It returns the answer.
func (x *telltale) check(route, query string, headers ...string) *authv3.CheckResponse {
	x.t.Helper()
	body, err := json.Marshal(map[string]string{"secret": headers[1]})
	if err != nil {
		x.t.Fatal(err)
	}
	raw := []*corev3.HeaderValue{{Key: "content-type", RawValue: []byte("application/json")}}
	h := &extauthz.Hypothesis{Method: "POST", Host: "api.test", Target: "/" + route + query, IP: "192.0.2.1", Body: body, Introspect: true}
	for i := 0; i < len(headers); i += 2 {
		raw = append(raw, &corev3.HeaderValue{Key: headers[i], RawValue: []byte(headers[i+1])})
		h.Headers = append(h.Headers, extauthz.HypotheticalHeader{Name: headers[i], Value: headers[i+1]})
	}
	response, err := x.server.Check(x.t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.1"},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "POST", Host: "api.test", Path: "/" + route + query, HeaderMap: &corev3.HeaderMap{Headers: raw}, RawBody: body, Size: int64(len(body)),
		}},
		ContextExtensions: map[string]string{"policy": "gateway/public", "route": route},
	}})
	if err != nil {
		x.t.Fatal(err)
	}
	x.tellProto(response)
	explained, err := x.keeper.Explain(x.server.Explain(x.t.Context(), h))
	if err != nil {
		x.t.Fatal(err)
	}
	x.tell(explained)
	return response
}

// tellProto keeps an answer but for the Passport, which goes to the service.
func (x *telltale) tellProto(response *authv3.CheckResponse) {
	for _, h := range response.GetOkResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "txn-token" {
			x.secret("Passport", h.GetHeader().GetValue())
			h.GetHeader().Value = ""
		}
	}
	fmt.Fprintln(&x.told, protojson.Format(response))
}

// Attack row A02, so far as it is about decisions: whatever clients show, and
// whatever is wrong with it, no log, metric, record, explanation or answer tells
// it, nor a part of it.
func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	x := startTelltale(t)
	id, key := credential.GenerateAPIKey()
	x.secret("API key", key)
	password := x.secret("password", "correct-horse-battery")
	hash, err := credential.HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	x.secret("hash of the password", hash[strings.LastIndexByte(hash, '$')+1:])
	keys := x.keys(
		&chancerypb.Accounts{Of: &chancerypb.Accounts_ApiKeys{ApiKeys: &chancerypb.APIKeys{ApiKeys: []*chancerypb.APIKey{{Id: id, Owner: "robot", Hash: credential.HashAPIKey(key)}}}}},
		&chancerypb.Accounts{Of: &chancerypb.Accounts_Users{Users: &chancerypb.Users{Name: "people", Users: []*chancerypb.User{{Name: "alice", Password: hash}}}}})
	rules, err := extauthz.Compile(x.gateway())
	if err != nil {
		t.Fatal(err)
	}
	state, err := rules.With(keys)
	if err != nil {
		t.Fatal(err)
	}
	x.server.SetState(state)

	tokens := x.idp.Login(t, "alice", idptest.JWT)
	opaque := x.idp.Login(t, "alice", idptest.Opaque).Access
	x.secret("access token", tokens.Access)
	x.secret("ID token", tokens.ID)
	x.secret("opaque token", opaque)
	basic := base64.StdEncoding.EncodeToString([]byte("alice:" + password))
	x.secret("Basic", basic)
	wrong := base64.StdEncoding.EncodeToString([]byte("alice:" + x.secret("wrong password", "incorrect-horse-battery")))
	x.secret("wrong Basic", wrong)
	expired := x.secret("expired token", x.idp.Sign(t, nil, map[string]any{"sub": "alice", "aud": idptest.Audience, "exp": 1}))
	odd := x.secret("odd token", x.idp.Sign(t, map[string]any{"kid": "nobody's-key-identifier"}, map[string]any{"sub": "alice\n", "aud": idptest.Audience}))
	revoked := x.secret("revoked token", x.idp.Login(t, "alice", idptest.Opaque).Access)
	x.idp.Revoke(t, revoked)

	bearer, allowed := "Bearer ", 0
	for _, route := range []string{"token", "both", "opaque", "key", "basic", "rule", "bind"} {
		for _, headers := range [][]string{
			{"authorization", bearer + tokens.Access},
			{"authorization", bearer + tokens.Access, "x-id-token", tokens.ID},
			{"authorization", bearer + opaque},
			{"x-api-key", key},
			{"authorization", "Basic " + basic},
			{"authorization", "Basic " + wrong},
			{"authorization", bearer + expired},
			{"authorization", bearer + odd},
			{"authorization", bearer + revoked},
			{"authorization", bearer + tokens.Access, "authorization", bearer + expired},
			{"authorization", bearer + tokens.Access + "x"},
			{"authorization", bearer + tokens.Access[:len(tokens.Access)-3]},
			{"authorization", tokens.Access},
			{"x-api-key", key + "x"},
			{"x-api-key", key[:30]},
			{"authorization", "Basic " + key},
			{"authorization", bearer + key},
			{"x-api-key", tokens.Access},
			{"x-id-token", tokens.Access},
			{"cookie", "session=" + tokens.Access},
			{"x-other", password},
			{"txn-token", tokens.Access},
			{"x-request-id", tokens.Access},
			{"proxy-authorization", "Basic " + basic},
			{"authorization", "Digest " + password},
		} {
			if x.check(route, "", headers...).GetOkResponse() != nil {
				allowed++
			}
			x.check(route, "?q="+headers[1], headers...)
			x.check(route, "?q="+headers[1]+"&access_token="+headers[1], headers...)
		}
	}
	if allowed < 5 {
		t.Errorf("only %d requests were allowed", allowed)
	}
	x.idp.Answer(idptest.Introspection, idptest.Text("no JSON: "+opaque+" "+idptest.Secret(idptest.APIClient)))
	x.check("opaque", "", "authorization", bearer+x.secret("another opaque token", "another-opaque-token-of-some-length"))
	x.idp.Close()
	x.check("opaque", "", "authorization", bearer+x.secret("one more opaque token", "one-more-opaque-token-of-some-length"))

	x.tellFaults(password, key)
	x.search(t)
}

// tellFaults writes documents in which secrets stand where they should not.
func (x *telltale) tellFaults(password, key string) {
	for _, document := range []string{
		"kind: Users\nname: people\nusers: [{name: alice, password: PASSWORD}]", "kind: Users\nname: people\nusers: [{name: alice, password: [PASSWORD]}]",
		"kind: APIKey\nname: aaaaaaaaaa\nclient: web\nowner: robot\nhash: KEY", "kind: APIKey\nname: KEY\nclient: web\nowner: robot\nhash: sha256:x",
		"kind: IdentityProvider\nname: idp\nissuer: https://idp.test\naudiences: [a]\nintrospection: {client: a, secret: PASSWORD}",
		"kind: IdentityProvider\nname: idp\nissuer: https://user:PASSWORD@idp.test\naudiences: [a]",
		"kind: IdentityProvider\nname: idp\nissuer: https://user:PASSWORD%zz@idp.test\naudiences: [a]",
		"kind: IdentityProvider\nname: idp\nissuer: https://idp.test\naudiences: [a]\nintrospection: {client: a, secret: PASSWORD!}",
		"kind: IdentityProvider\nname: idp\nissuer: https://idp.test\naudiences: [a]\nintrospection: {client: a, secret: a, endpoint: 'https://user:PASSWORD@idp.test/'}",
	} {
		text := strings.NewReplacer("PASSWORD", password, "KEY", key).Replace(document)
		_, err := mesh.Parse("a.yaml", []byte(text)).Compile(extauthz.DocumentOptions())
		fmt.Fprintln(&x.told, err)
	}
}

// search looks for all secrets in everything.
func (x *telltale) search(t *testing.T) {
	t.Helper()
	for _, explained := range x.ring.Last(10_000, func(*audit.Explained) bool { return true }) {
		x.tell(explained)
	}
	families, err := x.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		fmt.Fprintln(&x.told, family.String())
	}
	deadline := time.Now().Add(5 * time.Second)
	var log []byte
	for len(log) == 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
		log, _ = os.ReadFile(x.logFile)
	}
	told := x.told.String() + string(log)
	if len(log) == 0 || !strings.Contains(told, "check denied") || !strings.Contains(told, "chancery_checks_total") {
		t.Error("nothing is told")
	}
	for name, secret := range x.secrets {
		if i := strings.Index(told, secret); i >= 0 {
			t.Errorf("%s is told: %.300s", name, told[max(0, i-150):])
		}
	}
}
