package extauthz_test

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// A policy may tell nobody whether to authenticate: then a 403 says all there is
// to say.
func TestDenyStatus(t *testing.T) {
	t.Parallel()
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"token":  token("staff"),
		"gold":   {AnyOf: token("staff").GetAnyOf(), Acr: []string{"gold"}},
		"closed": {},
	})
	e.gateway.DenyStatus, e.service.DenyStatus = 403, 403
	gateway, service := e.serve(t), e.server(t, e.serviceState(t))
	good := "Bearer " + e.token(t, nil)
	bodies := map[string]bool{}
	for name, c := range map[string]call{
		"credential_missing":   e.at("token"),
		"token_malformed":      e.at("token", "authorization", "Bearer x"),
		"login_too_weak":       e.at("gold", "authorization", good),
		"route_closed":         e.at("closed", "authorization", good),
		"credential_ambiguous": e.at("token", "authorization", good, "authorization", good),
	} {
		response, got := check(t, gateway, c.request())
		if got != (outcome{403, name, ""}) {
			t.Errorf("%s: %+v", name, got)
		}
		p := problemOf(t, response)
		bodies[p.Type+p.Title+p.Code] = true
	}
	if len(bodies) != 1 || !bodies["about:blankForbiddenforbidden"] {
		t.Errorf("bodies %v", bodies)
	}
	if _, got := check(t, service, e.atService(t).header("txn-token").request()); got != (outcome{403, "passport_missing", ""}) {
		t.Errorf("service: %+v", got)
	}
	// What nobody could decide is no denial, and what is asked in a wrong way is
	// the client's own fault.
	ambiguous, unknown := e.at("token"), e.at("token")
	ambiguous.path, unknown.route = "/token/..", "other"
	for want, c := range map[int]call{400: ambiguous, 503: unknown} {
		if _, got := check(t, gateway, c.request()); got.status != want {
			t.Errorf("%+v, want %d", got, want)
		}
	}
	for _, status := range []uint32{1, 200, 401, 404} {
		e.gateway.DenyStatus = status
		if _, err := extauthz.Compile(e.gateway); err == nil {
			t.Errorf("deny status %d is taken", status)
		}
	}
}

// What documents say of accounts may come later than the policy. Until then
// nobody comes in who needs them, and those who do not still do.
func TestAccountsThatHaveNotCome(t *testing.T) {
	t.Parallel()
	routes := map[string]*chancerypb.Authentication{
		"token": token("staff"), "key": anyOf(&chancerypb.Credentials{ApiKey: true}), "basic": anyOf(&chancerypb.Credentials{Basic: "till"}),
		"open": {Anonymous: true}, "optional": {Anonymous: true, AnyOf: token("staff").GetAnyOf()},
	}
	const none = "no_accounts"
	for name, row := range map[string]struct {
		parts []int // of clients, keys, users
		want  map[string]string
	}{
		"all":     {[]int{0, 1, 2}, map[string]string{"token": "allowed", "key": "allowed", "basic": "allowed", "open": "allowed", "optional": "allowed"}},
		"nothing": {nil, map[string]string{"token": none, "key": none, "basic": none, "open": "allowed", "optional": "allowed"}},
		"clients": {[]int{0}, map[string]string{"token": "allowed", "key": none, "basic": none, "open": "allowed", "optional": "allowed"}},
		"keys":    {[]int{1}, map[string]string{"token": none, "key": none, "basic": none, "open": "allowed"}},
		"users":   {[]int{0, 2}, map[string]string{"token": "allowed", "key": none, "basic": "allowed"}},
	} {
		e := newEdge(t, routes)
		all := e.accounts
		e.accounts = nil
		for _, i := range row.parts {
			e.accounts = append(e.accounts, all[i])
		}
		s := e.serve(t)
		for route, want := range row.want {
			c := e.at(route)
			switch route {
			case "token":
				c = e.at(route, "authorization", "Bearer "+e.token(t, nil))
			case "key":
				c = e.at(route, "x-api-key", apiKeys()[keyOfWeb])
			case "basic":
				c = e.at(route, "authorization", basic("carol", "hunter2!"))
			}
			status := map[string]int{"allowed": 200, none: 503}[want]
			if _, got := check(t, s, c.request()); got != (outcome{status, want, ""}) {
				t.Errorf("%s: %s: %+v, want %s", name, route, got, want)
			}
		}
	}
	e := newEdge(t, routes)
	e.accounts[2].GetUsers().Users[0].Password = "x"
	if _, err := newState(e.gateway, e.keysOf()); err == nil || strings.Contains(err.Error(), "x\"") {
		t.Errorf("a bad hash: %v", err)
	}
}

// A decision that cannot be recorded is none.
func TestRecordFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for name, record := range map[string]func(*extauthz.Record) error{
		"error": func(*extauthz.Record) error { return errors.New("disk full") },
		"panic": func(*extauthz.Record) error { panic("disk full") },
	} {
		s, err := extauthz.New(extauthz.Config{
			Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer }, Record: record,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.SetState(f.gatewayState(t))
		for _, c := range []call{f.atGateway(t), f.atGateway(t).authorization()} {
			response, got := check(t, s, c.request())
			if got != (outcome{503, "audit_unavailable", ""}) || response.GetOkResponse() != nil || problemOf(t, response).Code != "unavailable" {
				t.Errorf("%s: %+v", name, got)
			}
		}
	}
}

// What a decision looked at, up to what ended it.
func TestSteps(t *testing.T) {
	t.Parallel()
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"all": {
			AnyOf: []*chancerypb.Credentials{{AccessToken: "staff", IdToken: "staff", ApiKey: true, Certificate: certified()}},
			Acr:   []string{"gold"}, Tenant: true, RegisteredClients: true, Introspect: true,
		},
		"basic": anyOf(&chancerypb.Credentials{Basic: "till", ApiKey: true}),
		"open":  {Anonymous: true},
	})
	for _, r := range e.gateway.GetRoutes() {
		if r.GetName() == "all" {
			r.Allow, r.Position, r.MaxBody = "request.method == 'GET'", "edge.yaml:7:12", 10
			r.Bind = map[string]string{"user": "user.id"}
		}
	}
	var last *extauthz.Record
	e.record = func(r *extauthz.Record) error { last = r; return nil }
	s := e.serve(t)
	all := func(change map[string]any) call {
		c := e.at("all", "authorization", "Bearer "+e.token(t, nil), "x-id-token", e.idToken(t, change), "x-api-key", apiKeys()[keyOfWeb])
		c.certificate = certificateOf(t, tillName)
		return c
	}
	post := all(map[string]any{"acr": "gold"})
	post.method = "POST"
	const shown = "credential access_token+id_token+api_key+client_certificate found"
	for name, row := range map[string]struct {
		call call
		want []string
	}{
		"everything": {all(map[string]any{"acr": "gold"}), []string{
			"route all ok", shown, "access_token staff ok", "id_token staff ok", "api_key " + keyOfWeb + " ok",
			"client_certificate " + tillName + " ok", "login gold ok", "tenant acme ok", "client web ok", "rule edge.yaml:7:12 ok", "bind ok", "passport ok",
		}},
		"weak": {all(nil), []string{
			"route all ok", shown, "access_token staff ok", "id_token staff ok", "api_key " + keyOfWeb + " ok",
			"client_certificate " + tillName + " ok", "login login_too_weak",
		}},
		"another's": {all(map[string]any{"sub": "bob"}), []string{
			"route all ok", shown, "access_token staff ok", "id_token staff ok", "credentials credentials_mismatch",
		}},
		"denied": {post, []string{
			"route all ok", shown, "access_token staff ok", "id_token staff ok", "api_key " + keyOfWeb + " ok",
			"client_certificate " + tillName + " ok", "login gold ok", "tenant acme ok", "client web ok", "rule edge.yaml:7:12 policy_denied",
		}},
		"basic": {e.at("basic", "authorization", basic("carol", "x"), "x-api-key", "y"), []string{
			"route basic ok", "credential api_key+basic found", "basic till password_invalid",
		}},
		"not enough": {e.at("basic", "authorization", basic("carol", "x")), []string{
			"route basic ok", "credential basic found", "credential basic credential_missing",
		}},
		"two":  {e.at("basic", "authorization", "x", "authorization", "y"), []string{"route basic ok", "credential credential_ambiguous"}},
		"open": {e.at("open", "authorization", "x"), []string{"route open ok", "credential anonymous skipped", "rule skipped"}},
	} {
		_, got := check(t, s, row.call.request())
		if diff := cmp.Diff(row.want, strings.Split(steps(last), ", ")); diff != "" || got.reason != last.Reason || got.status != last.Status {
			t.Errorf("%s: %+v (-want +got):\n%s", name, got, diff)
		}
		if last.Allowed() != slices.Contains([]string{"everything", "open"}, name) {
			t.Errorf("%s: %+v", name, got)
		}
		if denied := name == "denied"; denied != (len(last.Values) == 1 && last.Values[0].Text == `"POST"`) {
			t.Errorf("%s: values %v", name, last.Values)
		}
	}
}
