package model_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	index "github.com/chancery-mesh/chancery/extauthz/revocation"
	"github.com/chancery-mesh/chancery/extauthz/translate"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/mesh"
	"github.com/chancery-mesh/chancery/passport"
)

var (
	cases = flag.Int("cases", 32_000, "how many requests are decided twice")
	seed  = flag.Uint64("seed", 1, "which ones; 0 lets the clock choose")
)

// An episode is one server of each kind that lives through several sets of
// documents, in its own time.
const (
	sets       = 16
	callsOfSet = 500
)

// TestDifferential has requests decided by the model and by the server.
func TestDifferential(t *testing.T) {
	t.Parallel()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: to repeat an episode, run go test ./extauthz/model -cases %d -seed %d -run 'TestDifferential/episodes/NUMBER$'", *seed, *cases, *seed)
	var seen reasons
	t.Run("episodes", func(t *testing.T) {
		for number := range max(1, *cases/(sets*callsOfSet)) {
			t.Run(fmt.Sprint(number), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					newEpisode(t, rand.New(rand.NewPCG(*seed, uint64(number))), &seen).play()
				})
			})
		}
	})
	seen.check(t)
}

// reasons counts what decisions ended with.
type reasons struct {
	mu sync.Mutex
	of map[string]int
}

func (r *reasons) add(counts map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]int{}
	}
	for reason, n := range counts {
		r.of[reason] += n
	}
}

// check fails if some decision is never asked for any more: the comparison
// would say nothing of it.
func (r *reasons) check(t *testing.T) {
	t.Helper()
	total := 0
	for _, n := range r.of {
		total += n
	}
	t.Logf("%d checks: %v", total, r.of)
	if total < 500_000 {
		return // chance may have left some out
	}
	for _, reason := range allReasons {
		if r.of[reason] == 0 {
			t.Errorf("no request was answered with %s", reason)
		}
	}
	if allowed := r.of["allowed"]; allowed < total/10 {
		t.Errorf("only %d requests were allowed", allowed)
	}
}

var allReasons = strings.Fields(`
	allowed path_ambiguous route_mismatch body_truncated route_closed login_too_weak login_too_old policy_denied policy_error
	binding_error tenant_missing tenant_not_accepted client_not_registered client_inactive client_api_not_allowed
	client_tenant_mismatch caller_not_allowed caller_certificate_missing caller_certificate_invalid
	caller_certificate_mismatch caller_certificate_revoked caller_certificate_expired unknown_policy unknown_route no_keys
	keys_stale no_accounts no_trust no_signing_key introspection_unavailable
	credential_missing credential_ambiguous credential_unsupported token_malformed credentials_mismatch token_type_mismatch
	token_bound token_lifetime token_revoked no_revocations pdp_stale issuer_mismatch audience_mismatch token_expired token_not_yet_valid token_inactive unknown_key
	algorithm_mismatch signature_invalid claim_invalid api_key_invalid api_key_expired api_key_disabled password_invalid
	user_disabled certificate_invalid certificate_expired certificate_name_mismatch
	passport_missing passport_ambiguous passport_malformed passport_unknown_key passport_signature_invalid
	passport_audience_mismatch passport_gateway_mismatch passport_key_expired passport_provider_not_accepted
	passport_tenant_not_accepted passport_lifetime passport_expired passport_not_yet_valid passport_in_clear
	passport_credentials_missing`)

type episode struct {
	t        *testing.T
	g        generator
	seen     *reasons
	counts   map[string]int
	gateway  *extauthz.Server
	service  *extauthz.Server
	provider answers
	signer   *passport.Signer
	record   *extauthz.Record
	heard    time.Time
}

func newEpisode(t *testing.T, r *rand.Rand, seen *reasons) *episode {
	t.Helper()
	e := &episode{t: t, g: generator{r}, seen: seen, counts: map[string]int{}}
	for _, s := range []**extauthz.Server{&e.gateway, &e.service} {
		var err error
		*s, err = extauthz.New(extauthz.Config{
			// Small, so that what is remembered is also forgotten.
			Logger: slog.New(slog.DiscardHandler), CacheSize: 64, Introspector: &e.provider,
			Contact: func() time.Time { return e.heard },
			Signer:  func() *passport.Signer { return e.signer },
			Record:  func(r *extauthz.Record) error { e.record = r; return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// answers stands in for identity providers: it says of the token at hand what
// that is made of.
type answers struct{ at *token }

func (a *answers) Introspect(_ context.Context, p *chancerypb.Provider, _, _ string, now time.Time) (*credential.Identity, error) {
	switch t := a.at; {
	case t == nil || t.inactive && !t.unanswered:
		return nil, credential.Inactive
	case t.unanswered:
		return nil, context.DeadlineExceeded
	}
	reader, err := credential.NewIntrospection(p)
	if err != nil {
		return nil, err
	}
	answer := claims{"active": true}
	maps.Copy(answer, a.at.claims)
	if answer["typ"] == nil {
		answer["token_type"] = "Bearer"
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return reader.Identity(text, now)
}

func (e *episode) play() {
	for range sets {
		e.playSet()
		time.Sleep(20 * time.Second)
	}
	e.seen.add(e.counts)
}

func (e *episode) playSet() {
	d := e.g.documents(time.Now())
	m := &model{documents: d, routesByOrder: e.g.chance(4)}
	rules := e.compile(m)
	var earlier []played
	guesses := e.g.IntN(8) - 6 // at most one: a hash costs more than a hundred calls
	for n := range callsOfSet {
		if n%100 == 0 { // keys come more often than documents
			m.knowledge = e.g.knowledge(d, time.Now())
			e.apply(m, rules)
		}
		if e.g.chance(10) {
			time.Sleep(e.g.pause())
		}
		again := played{}
		if len(earlier) > 0 && e.g.chance(4) {
			again = pick(e.g, earlier[max(0, len(earlier)-60):]...)
		}
		earlier = append(earlier, e.playCall(&caller{generator: e.g, m: m, now: time.Now(), guesses: &guesses}, again))
	}
}

// pause ends now and then on the very second at which something ends.
func (g generator) pause() time.Duration {
	if g.chance(2) {
		return time.Until(time.Now().Truncate(time.Second).Add(time.Second))
	}
	return pick(g, time.Nanosecond, time.Millisecond, time.Second, 1500*time.Millisecond, 3*time.Second)
}

// compiled are the rules of the two policies.
type compiled struct {
	mesh             *mesh.Mesh
	gateway, service *extauthz.Rules
}

// compile goes the way of documents: text, mesh, policies, rules.
func (e *episode) compile(m *model) compiled {
	e.t.Helper()
	of, err := mesh.Parse("documents.yaml", m.text()).Compile(extauthz.DocumentOptions())
	for range 5 {
		faults, ok := errors.AsType[mesh.Faults](err)
		if !ok {
			break
		}
		m.mend(faults)
		of, err = mesh.Parse("documents.yaml", m.text()).Compile(extauthz.DocumentOptions())
	}
	if err != nil {
		e.t.Fatalf("%v\n%s", err, m.describe())
	}
	gateway, service := of.Gateway("public"), of.Service("orders")
	for _, r := range gateway.Routes {
		m.gatewayIDs = append(m.gatewayIDs, r.ID())
	}
	for _, r := range service.Routes {
		m.serviceIDs = append(m.serviceIDs, r.ID())
	}
	policies := [2]*chancerypb.Policy{translate.Gateway(of, gateway), translate.Service(of, service)}
	policies[0].MatchRoutes = m.routesByOrder
	var rules [2]*extauthz.Rules
	for i, p := range policies {
		if rules[i], err = extauthz.Compile(p); err != nil {
			e.t.Fatalf("%v\n%s", err, m.describe())
		}
	}
	return compiled{of, rules[0], rules[1]}
}

// apply makes the servers decide by what the model knows.
func (e *episode) apply(m *model, c compiled) {
	e.t.Helper()
	k := extauthz.Keys{}
	for _, p := range c.mesh.Providers {
		keys, known := m.keys[p.Name]
		if !known {
			continue
		}
		message := translate.Provider(p)
		if len(keys) > 0 {
			message.Jwks, message.UsableUntil = keySet(keys), timestamppb.New(m.usable[p.Name])
		}
		k.Providers = append(k.Providers, message)
	}
	for _, part := range translate.Accounts(c.mesh) {
		kind := map[bool]string{true: "clients"}[part.GetClients() != nil]
		if part.GetApiKeys() != nil {
			kind = "keys"
		} else if part.GetUsers() != nil {
			kind = "users"
		}
		if !m.unknown[kind] {
			k.Accounts = append(k.Accounts, part)
		}
	}
	for gateway, keys := range m.passportKeys {
		k.Passports = append(k.Passports, &chancerypb.PassportKeys{
			Gateway: gateway, SpiffeId: "spiffe://" + trustDomain + "/gateway/" + gateway, Jwks: passportKeySet(keys),
		})
	}
	if !m.noTrust {
		k.Trust = trust(m.revoked)
	}
	if !m.noRevocations {
		var err error
		if k.Revocations, err = revocations(m.revocations); err != nil {
			e.t.Fatal(err)
		}
	}
	e.heard = m.heard
	e.signer = nil
	if !m.noSigner {
		var err error
		if e.signer, err = passport.NewSigner(publicKey.private); err != nil {
			e.t.Fatal(err)
		}
	}
	for server, rules := range map[*extauthz.Server]*extauthz.Rules{e.gateway: c.gateway, e.service: c.service} {
		state, err := rules.With(k)
		if err != nil {
			e.t.Fatalf("%v\n%s", err, m.describe())
		}
		server.SetState(state)
	}
}

func revocations(list []revocation) (*index.Index, error) {
	message := &chancerypb.Revocations{}
	for i, r := range list {
		entry := &chancerypb.Revocation{
			Id: fmt.Sprint(i), Providers: r.providers, Before: timestamppb.New(r.before), Expires: timestamppb.New(r.expires),
		}
		switch r.kind {
		case "subject":
			entry.Whose = &chancerypb.Revocation_Subject{Subject: r.value}
		case "token":
			entry.Whose = &chancerypb.Revocation_Token{Token: r.value}
		case "client":
			entry.Whose = &chancerypb.Revocation_Client{Client: r.value}
		case "tenant":
			entry.Whose = &chancerypb.Revocation_Tenant{Tenant: r.value}
		}
		message.Entries = append(message.Entries, entry)
	}
	return index.New(message)
}

func keySet(keys []*key) []byte {
	var list []map[string]any
	for _, k := range keys {
		list = append(list, k.jwk())
	}
	return marshal(map[string]any{"keys": list})
}

func passportKeySet(keys []passportKey) []byte {
	var list []map[string]any
	for _, k := range keys {
		jwk := k.jwk()
		jwk["kid"], jwk["providers"] = k.thumbprint(), k.providers
		if k.tenants != nil {
			jwk["tenants"] = k.tenants
		}
		if !k.until.IsZero() {
			jwk["exp"] = k.until.Unix()
		}
		list = append(list, jwk)
	}
	return marshal(map[string]any{"keys": list})
}

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// trust is in all certificates of one authority but some.
type trust []certificate

func (t trust) IsRevoked(fingerprint [sha256.Size]byte) bool {
	return slices.ContainsFunc(t, func(c certificate) bool { return c.fingerprint() == fingerprint })
}

func (t trust) HasAuthority(id string) bool { return id == authority }

// played is a call that may come again, when keys have changed or time has gone
// by: what is remembered of it must not decide.
type played struct {
	call      *call
	atService bool
}

// playCall has a call decided, a new one if there is none, and at times twice.
func (e *episode) playCall(g *caller, p played) played {
	e.t.Helper()
	switch {
	case p.call != nil && p.call.guesses() && *g.guesses <= 0:
		return p // it would be throttled
	case p.call != nil:
		again := *p.call
		p.call, again.now = &again, g.now
	case e.g.chance(3):
		p = played{g.serviceCall(), true}
	default:
		p = played{g.gatewayCall(), false}
	}
	c, server, decide := p.call, e.gateway, g.m.gatewayDecides
	if p.atService {
		server, decide = e.service, g.m.serviceDecides
	}
	e.provider.at = nil
	if len(c.authorization) == 1 {
		e.provider.at = c.authorization[0].token
	}
	want := decide(c)
	request := c.request()
	for range 1 + e.g.IntN(2) {
		response, err := server.Check(e.t.Context(), request)
		if err != nil {
			e.t.Fatal(err)
		}
		if diff := cmp.Diff(want, outcomeOf(response)); diff != "" {
			e.t.Fatalf("-the model +the server:\n%s\ncause: %v, steps: %v\n%s\nknowledge: %+v\n%s\n%s",
				diff, e.record.Cause, e.record.Steps(), request, g.m.knowledge, callText(c), g.m.describe())
		}
		e.counts[want.Reason]++
		if want.Reason == "password_invalid" {
			*g.guesses--
			break // the next one would count as another guess
		}
	}
	return p
}

// guesses reports whether the call has a password that may be wrong.
func (c *call) guesses() bool {
	return slices.ContainsFunc(c.authorization, func(h header) bool {
		return h.scheme == "basic" && (h.user != "alice" || h.password != passwordOf(h.user))
	})
}

// callText shows what the credentials of a call are made of.
func callText(c *call) string {
	var b strings.Builder
	for _, h := range slices.Concat(c.authorization, c.idTokens, c.apiKeys, c.passports) {
		fmt.Fprintf(&b, "header: %+v\n", h)
		if h.token != nil {
			fmt.Fprintf(&b, "  token: %+v\n", *h.token)
		}
		if h.statement != nil {
			fmt.Fprintf(&b, "  passport: %+v\n", *h.statement)
		}
	}
	if c.certificate != nil {
		fmt.Fprintf(&b, "certificate: %+v\n", *c.certificate)
	}
	return b.String()
}

func standard(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// request is what Envoy would ask.
func (c *call) request() *authv3.CheckRequest {
	path := "/" + strings.Join(c.path, "/")
	if c.query != "" {
		path += "?" + c.query
	}
	http := &authv3.AttributeContext_HttpRequest{Method: c.method, Path: path, Host: c.host, RawBody: []byte(c.body.text), Size: int64(len(c.body.text))}
	if c.body.more {
		http.Size++
	}
	raw, merged := []*corev3.HeaderValue{}, map[string]string{}
	add := func(name string, lines ...string) {
		for _, line := range lines {
			raw = append(raw, &corev3.HeaderValue{Key: name, RawValue: []byte(line)})
		}
		if lines != nil {
			merged[name] = strings.Join(lines, ",")
		}
	}
	for name, headers := range map[string][]header{
		"authorization": c.authorization, "x-id-token": c.idTokens, "x-api-key": c.apiKeys, "txn-token": c.passports,
	} {
		var lines []string
		for _, h := range headers {
			lines = append(lines, h.text)
		}
		add(name, lines...)
	}
	add("x-role", c.roles...)
	add("content-type", c.contentTypes...)
	if c.merged {
		http.Headers = merged
	} else {
		http.HeaderMap = &corev3.HeaderMap{Headers: raw}
	}
	source := &authv3.AttributeContext_Peer{
		Principal: c.principal,
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: c.address},
		}},
	}
	if c.certificate != nil {
		source.Certificate = c.certificate.text()
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: source, Request: &authv3.AttributeContext_Request{Http: http},
		ContextExtensions: map[string]string{"policy": c.policy, "route": c.route},
	}}
}

// outcomeOf reads an answer.
func outcomeOf(r *authv3.CheckResponse) outcome {
	metadata := func(name string) string { return r.GetDynamicMetadata().GetFields()[name].GetStringValue() }
	o := outcome{
		Reason: metadata("reason"), User: metadata("user"), Tenant: metadata("tenant"), Client: metadata("client"),
		Plan: metadata("plan"), IP: metadata("ip"), Caller: metadata("caller"),
	}
	if ok := r.GetOkResponse(); ok != nil && r.GetStatus().GetCode() == 0 {
		o.Status = 200
		removed := strings.Join(ok.GetHeadersToRemove(), " ")
		for _, h := range ok.GetHeaders() {
			o.Passport = mintedOf(h.GetHeader())
		}
		switch removed {
		case "authorization x-id-token x-api-key":
			o.Strips = o.Passport != nil
		case "authorization x-id-token x-api-key txn-token":
			o.Strips = o.Passport == nil
		}
		return o
	}
	denied := r.GetDeniedResponse()
	o.Status = int(denied.GetStatus().GetCode())
	for _, h := range denied.GetHeaders() {
		o.Challenge = o.Challenge || h.GetHeader().GetKey() == "www-authenticate"
	}
	var problem struct{ Code string }
	if json.Unmarshal([]byte(denied.GetBody()), &problem) == nil {
		o.Code = problem.Code
	}
	return o
}

// mintedOf reads a Passport as any other library would.
func mintedOf(h *corev3.HeaderValue) *minted {
	head, rest, _ := strings.Cut(h.GetValue(), ".")
	payload, signature, _ := strings.Cut(rest, ".")
	s, _ := base64.RawURLEncoding.DecodeString(signature)
	text, _ := base64.RawURLEncoding.DecodeString(payload)
	var c struct {
		IAT, EXP        int64
		Aud, Sub, Scope string
		Gateway         string `json:"req_wl"`
		TCtx            struct {
			IDP, Tenant, Client string
			Groups              []string
			Bound               map[string]string
		}
		RCtx struct {
			Authn, ACR    string
			AMR           []string
			IP            string   `json:"req_ip"`
			AuthTime      int64    `json:"auth_time"`
			TokenIDs      []string `json:"cred_jti"`
			TokenSubject  string   `json:"cred_sub"`
			TokenIssuedAt int64    `json:"cred_iat"`
		}
	}
	if h.GetKey() != "txn-token" || json.Unmarshal(text, &c) != nil || !publicKey.verifies(head+"."+payload, s) {
		return &minted{Subject: "no Passport: " + h.GetValue()}
	}
	return &minted{
		Subject: c.Sub, Audience: c.Aud, Gateway: c.Gateway, Scope: c.Scope, IssuedAt: c.IAT, ExpiresAt: c.EXP,
		Provider: c.TCtx.IDP, Tenant: c.TCtx.Tenant, Client: c.TCtx.Client, Groups: c.TCtx.Groups, Bound: c.TCtx.Bound,
		IP: c.RCtx.IP, Authn: c.RCtx.Authn, ACR: c.RCtx.ACR, AMR: c.RCtx.AMR, AuthTime: c.RCtx.AuthTime,
		TokenIDs: c.RCtx.TokenIDs, TokenSubject: c.RCtx.TokenSubject, TokenIssuedAt: c.RCtx.TokenIssuedAt,
	}
}
