package extauthz_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/wire"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// outcome is what a test looks at of an answer.
type outcome struct {
	status    int
	reason    string
	challenge string
}

func check(t testing.TB, s *extauthz.Server, req *authv3.CheckRequest) (*authv3.CheckResponse, outcome) {
	t.Helper()
	data, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return answer(t, s, data)
}

// answer answers an encoded request.
func answer(t testing.TB, s *extauthz.Server, request []byte) (*authv3.CheckResponse, outcome) {
	t.Helper()
	response := &authv3.CheckResponse{}
	if err := proto.Unmarshal(s.Answer(t.Context(), wire.ParseRequest(request)).Append(nil), response); err != nil {
		t.Fatalf("Answer: %v", err)
	}
	o := outcome{reason: response.GetDynamicMetadata().GetFields()["reason"].GetStringValue()}
	switch {
	case response.GetOkResponse() != nil && codes.Code(response.GetStatus().GetCode()) == codes.OK:
		o.status = 200
	case response.GetDeniedResponse() != nil && codes.Code(response.GetStatus().GetCode()) != codes.OK:
		denied := response.GetDeniedResponse()
		o.status = int(denied.GetStatus().GetCode())
		headers := map[string]string{}
		for _, h := range denied.GetHeaders() {
			headers[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
		}
		o.challenge = headers["www-authenticate"]
		if headers["content-type"] != "application/problem+json" || headers["cache-control"] != "no-store" ||
			o.challenge != "" && o.status != 401 {
			t.Errorf("headers %v with %d", headers, o.status)
		}
		var problem struct {
			Type, Title, Code, Decision string
			Status                      int
		}
		strict := json.NewDecoder(strings.NewReader(denied.GetBody()))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&problem); err != nil {
			t.Errorf("body %q: %v", denied.GetBody(), err)
		}
		if problem.Status != o.status || problem.Decision != response.GetDynamicMetadata().GetFields()["decision"].GetStringValue() ||
			!slices.Contains(publicCodes, problem.Code) {
			t.Errorf("problem %+v with %d", problem, o.status)
		}
	default:
		t.Errorf("status and response disagree: %v", response)
	}
	return response, o
}

// publicCodes are all that clients are told apart.
var publicCodes = []string{"unauthenticated", "step_up_required", "forbidden", "bad_request", "unavailable"}

const (
	bearer  = `Bearer realm="public"`
	invalid = `Bearer realm="public", error="invalid_token"`
	txn     = `Txn-Token realm="orders"`
)

func TestGatewayDecides(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.server(t, f.gatewayState(t))
	good := f.atGateway(t)
	with := func(change func(*call)) call {
		c := good
		change(&c)
		return c
	}
	claim := func(name string, v any) call {
		return good.authorization("Bearer " + f.token(t, map[string]any{name: v}))
	}
	admin := func(headers ...string) call {
		c := claim("groups", []string{"admins"}).header("x-role", headers...)
		c.route, c.method, c.path = "admin", "POST", "/admin/7"
		return c
	}
	path := func(p string) call { return with(func(c *call) { c.path = p }) }
	for name, row := range map[string]struct {
		call call
		want outcome
	}{
		"good":                        {good, outcome{200, "allowed", ""}},
		"merged headers":              {with(func(c *call) { c.merged, c.headers = map[string]string{"authorization": c.headers[0][1]}, nil }), outcome{200, "allowed", ""}},
		"rule allows":                 {admin("user"), outcome{200, "allowed", ""}},
		"rule denies":                 {admin("user", "admin"), outcome{403, "policy_denied", ""}},
		"rule denies merged header":   {with(func(c *call) { *c = admin(); c.merged = map[string]string{"x-role": "user, admin"} }), outcome{403, "policy_denied", ""}},
		"rule cannot tell":            {admin(), outcome{403, "policy_error", ""}},
		"rule cannot read headers":    {admin("user").header("x", "\xc3\x28"), outcome{403, "policy_error", ""}},
		"wrong group":                 {with(func(c *call) { c.route, c.method, c.path = "admin", "POST", "/admin/7" }).header("x-role", "user"), outcome{403, "policy_denied", ""}},
		"no token":                    {good.authorization(), outcome{401, "credential_missing", bearer}},
		"empty authorization":         {good.authorization(""), outcome{401, "credential_unsupported", invalid}},
		"basic":                       {good.authorization("Basic YTpi"), outcome{401, "credential_unsupported", invalid}},
		"two tokens":                  {good.authorization("Bearer a", "Bearer b"), outcome{401, "credential_ambiguous", invalid}},
		"two good tokens":             {good.authorization(good.headers[0][1], good.headers[0][1]), outcome{401, "credential_ambiguous", invalid}},
		"joined tokens":               {good.authorization("Bearer a,Bearer b"), outcome{401, "credential_ambiguous", invalid}},
		"second in other case":        {good.header("Authorization", "Bearer b"), outcome{401, "credential_ambiguous", invalid}},
		"second in query":             {path("/orders/1?access_token=b"), outcome{401, "credential_ambiguous", invalid}},
		"second in encoded query":     {path("/orders/1?a&%61ccess_token=b"), outcome{401, "credential_ambiguous", invalid}},
		"only in query":               {path("/orders/1?access_token=b").authorization(), outcome{401, "credential_unsupported", invalid}},
		"no JWT":                      {good.authorization("Bearer abc"), outcome{401, "token_malformed", invalid}},
		"passport as a token":         {good.authorization("Bearer " + f.passport(t, unchanged)), outcome{401, "token_type_mismatch", invalid}},
		"expired":                     {claim("exp", 1), outcome{401, "token_expired", invalid}},
		"not yet valid":               {claim("nbf", time.Now().Unix()+60), outcome{401, "token_not_yet_valid", invalid}},
		"other audience":              {claim("aud", "other"), outcome{401, "audience_mismatch", invalid}},
		"other issuer":                {claim("iss", "https://evil.test"), outcome{401, "issuer_mismatch", invalid}},
		"ID token":                    {claim("nonce", "n"), outcome{401, "token_type_mismatch", invalid}},
		"bound token":                 {claim("cnf", map[string]any{}), outcome{401, "token_bound", invalid}},
		"no user":                     {claim("sub", nil), outcome{401, "claim_invalid", invalid}},
		"changed signature":           {good.authorization(good.headers[0][1][:len(good.headers[0][1])-4] + "AAAA"), outcome{401, "signature_invalid", invalid}},
		"route without provider":      {with(func(c *call) { c.route, c.path = "closed", "/closed" }), outcome{403, "route_closed", ""}},
		"groups too large to forward": {claim("groups", strings.Split(strings.Repeat("group-of-people ", 450)+"x", " ")), outcome{403, "passport_too_large", ""}},
		"other policy":                {with(func(c *call) { c.policy = "gateway/partner" }), outcome{503, "unknown_policy", ""}},
		"no policy":                   {with(func(c *call) { c.policy = "" }), outcome{503, "unknown_policy", ""}},
		"unknown route":               {with(func(c *call) { c.route = "x" }), outcome{503, "unknown_route", ""}},
		"no route":                    {with(func(c *call) { c.route = "" }), outcome{503, "unknown_route", ""}},
		"path of another route":       {path("/admin/7"), outcome{403, "route_mismatch", ""}},
		"path with longer prefix":     {path("/ordersx"), outcome{403, "route_mismatch", ""}},
		"method of another route":     {with(func(c *call) { c.route, c.path = "admin", "/admin/7" }), outcome{403, "route_mismatch", ""}},
		"method in lower case":        {with(func(c *call) { c.route, c.path, c.method = "admin", "/admin/7", "post" }), outcome{403, "route_mismatch", ""}},
		"double slash":                {path("//orders/1"), outcome{400, "path_ambiguous", ""}},
		"dot segments":                {path("/orders/../admin"), outcome{400, "path_ambiguous", ""}},
		"encoded slash":               {path("/orders/a%2fb"), outcome{400, "path_ambiguous", ""}},
		"encoded letter":              {path("/%6frders/1"), outcome{400, "path_ambiguous", ""}},
		"parameters":                  {path("/orders;x=y/1"), outcome{400, "path_ambiguous", ""}},
		"backslash":                   {path(`/orders\..\admin`), outcome{400, "path_ambiguous", ""}},
		"fragment":                    {path("/orders/1#x"), outcome{400, "path_ambiguous", ""}},
		"host first":                  {path("//evil.test/orders/1"), outcome{400, "path_ambiguous", ""}},
		"absolute form":               {path("http://api.test/orders/1"), outcome{400, "path_ambiguous", ""}},
		"empty path":                  {path(""), outcome{400, "path_ambiguous", ""}},
		"path without slash":          {path("orders/1"), outcome{400, "path_ambiguous", ""}},
		"dots in the query only":      {path("/orders/1?x=/../admin"), outcome{200, "allowed", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, got := check(t, s, row.call.request()); got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

func TestServiceDecides(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.server(t, f.serviceState(t))
	good := f.atService(t)
	with := func(change func(*call)) call {
		c := good
		change(&c)
		return c
	}
	token := func(tokens ...string) call { return good.header("txn-token", tokens...) }
	changed := func(change func(*passport.Passport)) call { return token(f.passport(t, change)) }
	valid := f.passport(t, unchanged)
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	stranger, err := passport.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	caller := func(id string) call {
		return with(func(c *call) {
			if c.caller, c.certificate = id, ""; id != "" {
				c.certificate = certificateOf(t, id)
			}
		})
	}
	other := *f
	other.signer = stranger
	for name, row := range map[string]struct {
		call call
		want outcome
	}{
		"good":                    {good, outcome{200, "allowed", ""}},
		"from a service":          {caller(serviceCaller), outcome{200, "allowed", ""}},
		"from nobody":             {caller(""), outcome{403, "caller_not_allowed", ""}},
		"from another service":    {caller("spiffe://shop.example/service/stock"), outcome{403, "caller_not_allowed", ""}},
		"from a longer name":      {caller(gatewayID + "2"), outcome{403, "caller_not_allowed", ""}},
		"from another domain":     {caller("spiffe://evil.example/gateway/public"), outcome{403, "caller_not_allowed", ""}},
		"caller in capitals":      {caller("SPIFFE://shop.example/gateway/public"), outcome{403, "caller_not_allowed", ""}},
		"caller encoded":          {caller("spiffe://shop.example/gateway%2fpublic"), outcome{403, "caller_not_allowed", ""}},
		"route without callers":   {with(func(c *call) { c.route, c.path = "nobody", "/nobody" }), outcome{403, "caller_not_allowed", ""}},
		"no passport":             {token(), outcome{401, "passport_missing", txn}},
		"empty passport":          {token(""), outcome{401, "passport_malformed", txn}},
		"two passports":           {token(valid, valid), outcome{401, "passport_ambiguous", txn}},
		"joined passports":        {token(valid + "," + valid), outcome{401, "passport_ambiguous", txn}},
		"forged passport":         {token(valid[:len(valid)-4] + "AAAA"), outcome{401, "passport_signature_invalid", txn}},
		"passport of a stranger":  {token(other.passport(t, unchanged)), outcome{401, "passport_unknown_key", txn}},
		"passport of another":     {changed(func(p *passport.Passport) { p.Gateway += "2" }), outcome{401, "passport_gateway_mismatch", txn}},
		"passport elsewhere":      {changed(func(p *passport.Passport) { p.Audience = "x.example" }), outcome{401, "passport_audience_mismatch", txn}},
		"passport for too long":   {changed(func(p *passport.Passport) { p.ExpiresAt = p.IssuedAt.Add(time.Hour) }), outcome{401, "passport_lifetime", txn}},
		"expired passport":        {changed(func(p *passport.Passport) { p.IssuedAt, p.ExpiresAt = time.Unix(1, 0), time.Unix(2, 0) }), outcome{401, "passport_expired", txn}},
		"passport of tomorrow":    {changed(func(p *passport.Passport) { p.IssuedAt = p.IssuedAt.Add(50 * time.Second) }), outcome{401, "passport_not_yet_valid", txn}},
		"access token":            {token(f.token(t, nil)), outcome{401, "passport_malformed", txn}},
		"rule denies":             {changed(func(p *passport.Passport) { p.Groups = []string{"ops"} }), outcome{403, "policy_denied", ""}},
		"rule misses a tenant":    {changed(func(p *passport.Passport) { p.Tenant = "" }), outcome{403, "policy_error", ""}},
		"client's address counts": {changed(func(p *passport.Passport) { p.ClientIP = "10.0.0.1" }), outcome{403, "policy_denied", ""}},
		"method":                  {with(func(c *call) { c.method = "DELETE" }), outcome{403, "route_mismatch", ""}},
		"path":                    {with(func(c *call) { c.path = "/orders/1/lines" }), outcome{403, "route_mismatch", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response, got := check(t, s, row.call.request())
			if got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			if ok := response.GetOkResponse(); len(ok.GetHeaders())+len(ok.GetHeadersToRemove()) != 0 {
				t.Errorf("service's headers changed: %v", ok)
			}
		})
	}
}

func TestGatewayThatMintsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Minting = nil
	response, got := check(t, f.server(t, f.gatewayState(t)), f.atGateway(t).request())
	if got.status != 200 || len(response.GetOkResponse().GetHeaders()) > 0 {
		t.Errorf("got %+v, %v", got, response)
	}
}

func TestGatewayMints(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	gateway := f.server(t, f.gatewayState(t))
	response, _ := check(t, gateway, f.atGateway(t).request())
	ok := response.GetOkResponse()
	if diff := cmp.Diff([]string{"authorization", "x-id-token", "x-api-key"}, ok.GetHeadersToRemove()); diff != "" {
		t.Errorf("removed headers (-want +got):\n%s", diff)
	}
	if len(ok.GetHeaders()) != 1 || ok.GetHeaders()[0].GetHeader().GetKey() != "txn-token" ||
		ok.GetHeaders()[0].GetAppendAction().String() != "OVERWRITE_IF_EXISTS_OR_ADD" {
		t.Fatalf("headers = %v", ok.GetHeaders())
	}
	token := ok.GetHeaders()[0].GetHeader().GetValue()
	got, _, err := passport.Inspect(token)
	if err != nil {
		t.Fatal(err)
	}
	want := &passport.Passport{
		ID: "req-1", Subject: "alice", Audience: domain, Gateway: gatewayID, Tenant: "acme", Groups: []string{"sales"},
		Client: "web", ClientIP: "192.0.2.1", Authn: "access_token", Provider: "staff",
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(passport.Passport{}),
		cmpopts.IgnoreFields(passport.Passport{}, "IssuedAt", "ExpiresAt")); diff != "" {
		t.Errorf("passport (-want +got):\n%s", diff)
	}
	if got.ExpiresAt.Sub(got.IssuedAt) != time.Minute || time.Since(got.IssuedAt).Abs() > time.Minute {
		t.Errorf("valid from %v to %v", got.IssuedAt, got.ExpiresAt)
	}

	// The service takes it.
	service := f.server(t, f.serviceState(t))
	if _, got := check(t, service, f.atService(t).header("txn-token", token).request()); got.status != 200 {
		t.Errorf("service: %+v", got)
	}
	// Each request gets one of its own, and a request without id a new id.
	response, _ = check(t, gateway, f.atGateway(t).header("x-request-id", "two", "ids").request())
	again, _, err := passport.Inspect(response.GetOkResponse().GetHeaders()[0].GetHeader().GetValue())
	if err != nil || len(again.ID) < 20 {
		t.Errorf("%v, %v", again, err)
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for name, row := range map[string]struct {
		state *extauthz.State
		call  call
		want  map[string]any
	}{
		"gateway": {f.gatewayState(t), f.atGateway(t), map[string]any{
			"user": "alice", "tenant": "acme", "client": "web", "plan": "-", "ip": "192.0.2.1", "caller": "-", "reason": "allowed",
		}},
		"service": {f.serviceState(t), f.atService(t), map[string]any{
			"user": "alice", "tenant": "acme", "client": "web", "plan": "-", "ip": "192.0.2.1", "caller": gatewayID, "reason": "allowed",
		}},
		"nothing is never empty": {f.gatewayState(t), f.atGateway(t).authorization("Bearer " + f.token(t, map[string]any{
			"tenant": nil, "client_id": nil,
		})), map[string]any{
			"user": "alice", "tenant": "-", "client": "-", "plan": "-", "ip": "192.0.2.1", "caller": "-", "reason": "allowed",
		}},
		"denied": {f.gatewayState(t), f.atGateway(t).authorization(), map[string]any{
			"user": "-", "tenant": "-", "client": "-", "plan": "-", "ip": "192.0.2.1", "caller": "-", "reason": "credential_missing",
		}},
	} {
		response, _ := check(t, f.server(t, row.state), row.call.request())
		got := response.GetDynamicMetadata().AsMap()
		if id, _ := got["decision"].(string); len(id) != 32 {
			t.Errorf("%s: decision %q", name, id)
		}
		delete(got, "decision")
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	// One host, one spelling.
	for ip, want := range map[string]string{
		"::ffff:10.0.0.1": "10.0.0.1", "2001:DB8::1": "2001:db8::/64", "fe80::1%eth0": "fe80::/64", "": "-", "010.0.0.1": "-",
	} {
		c := f.atGateway(t)
		c.ip = ip
		response, _ := check(t, f.server(t, f.gatewayState(t)), c.request())
		if got := response.GetDynamicMetadata().AsMap()["ip"]; got != want {
			t.Errorf("ip of %q = %q, want %q", ip, got, want)
		}
	}
}

func TestUndecidableIsDenied(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	server := func(c extauthz.Config, state *extauthz.State) *extauthz.Server {
		t.Helper()
		c.Logger = slog.New(slog.DiscardHandler)
		s, err := extauthz.New(c)
		if err != nil {
			t.Fatal(err)
		}
		s.SetState(state)
		return s
	}
	state := func(p *chancerypb.Policy, change func(*chancerypb.Provider), keys ...*chancerypb.PassportKeys) *extauthz.State {
		t.Helper()
		provider := newFixture(t).provider
		change(provider)
		s, err := newState(p, extauthz.Keys{Providers: []*chancerypb.Provider{provider}, Passports: keys, Trust: f.trust})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	signer := func() *passport.Signer { return f.signer }
	good, service := f.atGateway(t).request(), f.atService(t).request()
	for name, row := range map[string]struct {
		server  *extauthz.Server
		request *authv3.CheckRequest
		reason  string
	}{
		"no state":           {server(extauthz.Config{Signer: signer}, nil), good, "no_state"},
		"nil":                {server(extauthz.Config{Signer: signer}, f.gatewayState(t)), nil, "request_incomplete"},
		"empty":              {server(extauthz.Config{Signer: signer}, f.gatewayState(t)), &authv3.CheckRequest{}, "request_incomplete"},
		"no signing key":     {server(extauthz.Config{Signer: func() *passport.Signer { return nil }}, f.gatewayState(t)), good, "no_signing_key"},
		"no signer":          {server(extauthz.Config{}, f.gatewayState(t)), good, "no_signing_key"},
		"panic":              {server(extauthz.Config{Signer: func() *passport.Signer { panic("x") }}, f.gatewayState(t)), good, "internal_error"},
		"provider not there": {server(extauthz.Config{Signer: signer}, state(f.gateway, func(p *chancerypb.Provider) { p.Name = "x" })), good, "no_keys"},
		"no keys yet":        {server(extauthz.Config{Signer: signer}, state(f.gateway, func(p *chancerypb.Provider) { p.Jwks = nil })), good, "no_keys"},
		"stale keys": {server(extauthz.Config{Signer: signer}, state(f.gateway, func(p *chancerypb.Provider) {
			p.UsableUntil = timestamppb.Now()
		})), good, "keys_stale"},
		"keys of no known age": {server(extauthz.Config{Signer: signer}, state(f.gateway, func(p *chancerypb.Provider) {
			p.UsableUntil = nil
		})), good, "keys_stale"},
		"no passport keys": {server(extauthz.Config{}, state(f.service, func(*chancerypb.Provider) {})), service, "no_keys"},
		"keys of another gateway": {server(extauthz.Config{}, state(f.service, func(*chancerypb.Provider) {},
			&chancerypb.PassportKeys{Gateway: "partner", SpiffeId: gatewayID, Jwks: f.keys.GetJwks()})), service, "no_keys"},
		"policy of a service for a gateway": {server(extauthz.Config{Signer: signer}, f.serviceState(t)), good, "unknown_policy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, got := check(t, row.server, row.request); got != (outcome{503, row.reason, ""}) {
				t.Errorf("got %+v, want 503 %s", got, row.reason)
			}
		})
	}
}

func TestMalformedRequestIsDenied(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	data, err := proto.Marshal(f.atGateway(t).request())
	if err != nil {
		t.Fatal(err)
	}
	s := f.server(t, f.gatewayState(t))
	for name, request := range map[string][]byte{"cut off": data[:len(data)-1], "twice": append(data, data...)} {
		if _, got := answer(t, s, request); got != (outcome{503, "request_malformed", ""}) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestCancelledContextIsDenied(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, c := range []struct {
		state *extauthz.State
		call  call
	}{{f.gatewayState(t), f.atGateway(t)}, {f.serviceState(t), f.atService(t)}} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		response, err := f.server(t, c.state).Check(ctx, c.call.request())
		if err != nil || response.GetDeniedResponse() == nil ||
			response.GetDynamicMetadata().AsMap()["reason"] != "cancelled" {
			t.Errorf("%v, %v", response, err)
		}
	}
}

// A cached token ends with its own time, and with its provider's keys.
func TestCacheEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		s := f.server(t, f.gatewayState(t))
		request := f.atGateway(t).request()
		expect := func(want string) {
			t.Helper()
			if _, got := check(t, s, request); got.reason != want {
				t.Errorf("reason %s, want %s", got.reason, want)
			}
		}
		expect("allowed")
		time.Sleep(10*time.Minute - time.Second)
		expect("allowed")
		time.Sleep(2 * time.Second)
		expect("token_expired")

		request = f.atGateway(t).request()
		expect("allowed")
		f.provider.Audiences = []string{"other"}
		s.SetState(f.gatewayState(t))
		expect("audience_mismatch")
		time.Sleep(time.Hour)
		expect("keys_stale")
	})
}

func TestLogAndMetrics(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var log bytes.Buffer
	registry := prometheus.NewPedanticRegistry()
	s, err := extauthz.New(extauthz.Config{
		Logger:     slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Registerer: registry, Signer: func() *passport.Signer { return f.signer },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetState(f.gatewayState(t))
	good := f.atGateway(t)
	response, _ := check(t, s, good.request())
	check(t, s, good.authorization().request())
	evil := good
	evil.route = "x\r\n{\"reason\":\"allowed\"}"
	check(t, s, evil.header("x-request-id", "id\r\nforged").request())

	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d records, want 3:\n%s", len(lines), log.String())
	}
	for i, want := range []map[string]any{
		{"level": "DEBUG", "msg": "check allowed", "route": "orders", "reason": "allowed", "sub": "alice", "request_id": "req-1"},
		{"level": "INFO", "msg": "check denied", "route": "orders", "reason": "credential_missing", "request_id": "req-1"},
		{"level": "INFO", "msg": "check denied", "route": "", "reason": "unknown_route"},
	} {
		var got map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
			t.Fatal(err)
		}
		for name, v := range want {
			if got[name] != v {
				t.Errorf("record %d: %s = %v, want %v", i, name, got[name], v)
			}
		}
	}
	minted := response.GetOkResponse().GetHeaders()[0].GetHeader().GetValue()
	for _, secret := range []string{minted, strings.TrimPrefix(good.headers[0][1], "Bearer ")} {
		if strings.Contains(log.String(), secret) {
			t.Error("a token is in the log")
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP chancery_checks_total Authorization checks, by the policy and route that decided, and why.
# TYPE chancery_checks_total counter
chancery_checks_total{decision="allow",policy="gateway/public",reason="allowed",route="orders"} 1
chancery_checks_total{decision="deny",policy="gateway/public",reason="credential_missing",route="orders"} 1
chancery_checks_total{decision="deny",policy="gateway/public",reason="unknown_route",route=""} 1
`), "chancery_checks_total"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(registry, "chancery_check_duration_seconds"); n != 1 {
		t.Errorf("%d histograms", n)
	}
	if _, err := extauthz.New(extauthz.Config{Logger: slog.Default(), Registerer: registry}); err == nil {
		t.Error("registered twice")
	}
	if _, err := extauthz.New(extauthz.Config{}); err == nil {
		t.Error("no logger")
	}
}

// Attack row F08: a body in a text may have been repaired on its way here, and the
// service gets the other one.
func TestBodyThatIsNoBytes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Routes[0].Allow, f.gateway.Routes[0].MaxBody = "request.body.to == 'b!b'", 100
	s := f.server(t, f.gatewayState(t))
	request := f.atGateway(t).header("content-type", "application/json").request()
	http := request.GetAttributes().GetRequest().GetHttp()
	http.Body, http.Size = `{"to":"b!b"}`, 12
	if _, got := check(t, s, request); got.reason != "body_truncated" {
		t.Errorf("a text: %+v", got)
	}
	http.Size = -1
	if _, got := check(t, s, request); got.reason != "policy_error" {
		t.Errorf("a text of which nobody knows how long it was: %+v", got)
	}
	http.Body, http.RawBody = "", []byte(`{"to":"b!b"}`)
	if _, got := check(t, s, request); got.reason != "allowed" {
		t.Errorf("bytes: %+v", got)
	}
}
