package extauthz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

// recorded is a server whose decisions are kept.
type recorded struct {
	*extauthz.Server
	ring *audit.Ring
	// lines are of the decision log, once it was stopped; log is what the server
	// said.
	lines   func() string
	log     *bytes.Buffer
	metrics *prometheus.Registry
}

// runLog runs a decision log until stop is called, or the test ends.
func runLog(t testing.TB, sink audit.Sink) (log *audit.DecisionLog, stop func()) {
	t.Helper()
	log, err := audit.NewDecisionLog(audit.DecisionLogConfig{Sink: sink, Logger: slog.New(slog.DiscardHandler), Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := log.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return log, stop
}

func (f *fixture) recorded(t *testing.T, state *extauthz.State, key []byte) *recorded {
	t.Helper()
	return f.recordedIn(t, filepath.Join(t.TempDir(), "decisions.jsonl"), state, key)
}

func (f *fixture) recordedIn(t *testing.T, path string, state *extauthz.State, key []byte) *recorded {
	t.Helper()
	sink, err := audit.NewFile(audit.FileConfig{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	log, stop := runLog(t, sink)
	r := &recorded{ring: audit.NewRing(0, 0), log: &bytes.Buffer{}, metrics: prometheus.NewRegistry()}
	r.lines = func() string {
		stop()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	r.Server, err = extauthz.New(extauthz.Config{
		Logger:     slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Registerer: r.metrics,
		Signer:     func() *passport.Signer { return f.signer },
		Record:     decisions.New(decisions.Config{Log: log, Ring: r.ring, Key: key}).Record,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.SetState(state)
	return r
}

var hashKey = bytes.Repeat([]byte{9}, 32)

// Every decision has one record, in the log and in memory, that says what
// happened and no secret.
func TestEveryDecisionIsRecorded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Routes[0].Position = "edge.yaml:12:12"
	f.gateway.Routes[1].Position = "edge.yaml:15:12"
	for name, row := range map[string]struct {
		state *extauthz.State
		call  call
		want  string
		trace string
	}{
		"allowed at a gateway": {
			f.gatewayState(t), f.atGateway(t).header("cookie", "secret-cookie"),
			"allow 200 allowed gateway/public orders GET /orders/1 alice acme web staff [access_token] 192.0.2.0/24 req-1",
			"route orders ok, credential access_token found, access_token staff ok, tenant acme ok, rule  skipped, passport  ok",
		},
		"forbidden": {
			f.gatewayState(t), func() call {
				c := f.atGateway(t)
				c.route, c.method, c.path = "admin", "POST", "/admin/7?password=secret-query"
				return c
			}(),
			"deny 403 policy_denied gateway/public admin POST /admin/7 alice acme web staff [access_token] 192.0.2.0/24 ",
			"route admin ok, credential access_token found, access_token staff ok, tenant acme ok, rule edge.yaml:15:12 policy_denied",
		},
		"with a bad token": {
			f.gatewayState(t), f.atGateway(t).authorization("Bearer secret.token.here"),
			"deny 401 token_malformed gateway/public orders GET /orders/1    - [access_token] 192.0.2.0/24 ",
			"route orders ok, credential access_token found, access_token staff token_malformed",
		},
		"allowed beside a service": {
			f.serviceState(t), f.atService(t),
			"allow 200 allowed service/orders get-order GET /orders/1 alice acme web staff [] 192.0.2.0/24 req-1",
			"route get-order ok, caller spiffe://shop.example/gateway/public ok, passport spiffe://shop.example/gateway/public ok, tenant acme ok, rule  ok",
		},
		"without a state": {nil, f.atGateway(t), "deny 503 no_state        - []  ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := f.recorded(t, row.state, nil)
			response, o := check(t, r.Server, row.call.request())
			kept := r.ring.Last(10, nil)
			if len(kept) != 1 {
				t.Fatalf("kept %+v", kept)
			}
			e := kept[0]
			got := fmt.Sprintf("%s %d %s %s %s %s %s %s %s %s %s %v %s %s", e.Decision.Decision, e.Status, e.Reason, e.Policy, e.Route,
				e.Method, e.Path, e.User, e.Tenant, e.Client, or(e.Provider, "-"), e.Credentials, e.IP, e.Transaction)
			if got != row.want {
				t.Errorf("kept %q, want %q", got, row.want)
			}
			var trace []string
			for _, s := range e.Trace {
				trace = append(trace, s.What+" "+s.Subject+" "+s.Outcome)
			}
			if got := strings.Join(trace, ", "); got != row.trace {
				t.Errorf("trace is %q, want %q", got, row.trace)
			}
			if id := response.GetDynamicMetadata().GetFields()["decision"].GetStringValue(); e.ID != id || e.Status != o.status {
				t.Errorf("kept as %s, %d; told %s, %d", e.ID, e.Status, id, o.status)
			}
			lines := r.lines()
			var line audit.Decision
			if err := json.Unmarshal([]byte(lines), &line); err != nil || strings.Count(lines, "\n") != 1 || line.ID != e.ID || line.Reason != e.Reason {
				t.Errorf("log is %q, %v", lines, err)
			}
			all, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			secrets := []string{"secret", "eyJ", "Bearer"}
			for _, h := range row.call.headers {
				if h[0] != "x-request-id" {
					secrets = append(secrets, h[1])
				}
			}
			for _, text := range []string{lines, string(all), r.log.String()} {
				for _, secret := range secrets {
					if strings.Contains(text, secret) {
						t.Errorf("%q is in %s", secret, text)
					}
				}
			}
		})
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// A02: of all that requests come with, and of what they leave with, no secret is
// in a record, in memory, in what the server says, or in a metric; nor of what
// stands where it does not belong.
func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	e := newEdge(t, map[string]*chancerypb.Authentication{
		"any":  anyOf(&chancerypb.Credentials{AccessToken: "staff"}, &chancerypb.Credentials{ApiKey: true}, &chancerypb.Credentials{Basic: "till"}),
		"both": anyOf(&chancerypb.Credentials{AccessToken: "staff", IdToken: "staff"}),
	})
	for _, route := range e.gateway.Routes {
		route.Path += "/**"
		route.Allow = `request.path in ['/any', '/both'] && !('x' in request.headers['x-session']) && request.query == {}`
	}
	state, err := newState(e.gateway, e.keysOf())
	if err != nil {
		t.Fatal(err)
	}
	r := e.recorded(t, state, nil)
	token, id, key := e.token(t, nil), e.idToken(t, nil), apiKeys()[keyOfWeb]
	secrets := []string{"eyJ", key, key[15:47], apiKeys()[keyDisabled], "hunter2", basic("carol", "hunter2!")[6:], basic("carol", "hunter3!")[6:], "s3cret"}
	var calls []call
	for _, path := range []string{"", "/no", "/" + token, "/" + key, "?access_token=" + token, "?q=s3cret"} {
		for _, headers := range [][]string{
			{"authorization", "Bearer " + token},
			{"authorization", "Bearer " + token[:len(token)-8] + "AAAAAAAA"},
			{"authorization", "Bearer " + token + " " + token},
			{"authorization", token},
			{"x-api-key", key},
			{"x-api-key", key[:52] + "0"},
			{"x-api-key", apiKeys()[keyDisabled]},
			{"authorization", basic("carol", "hunter2!")},
			{"authorization", basic("carol", "hunter3!")},
			{"x-id-token", id},
			{"authorization", "Bearer " + token, "x-id-token", id},
			{"authorization", "Bearer " + token, "authorization", basic("carol", "hunter2!")},
		} {
			for _, route := range []string{"any", "both"} {
				c := e.at(route, append(headers, "cookie", "s3cret", "x-session", "s3cret")...)
				c.path += path
				calls = append(calls, c)
			}
		}
	}
	for _, c := range calls {
		response, _ := check(t, r.Server, c.request())
		if headers := response.GetOkResponse().GetHeaders(); len(headers) > 0 {
			secrets = append(secrets, headers[0].GetHeader().GetValue())
		}
	}
	kept := r.ring.Last(10000, nil)
	all, err := json.Marshal(kept)
	if err != nil || len(kept) != len(calls) {
		t.Fatalf("kept %d of %d, %v", len(kept), len(calls), err)
	}
	lines := r.lines()
	if n := strings.Count(lines, "\n"); n != len(calls) {
		t.Errorf("%d lines for %d calls", n, len(calls))
	}
	var metrics strings.Builder
	families, err := r.metrics.Gather()
	for _, m := range families {
		fmt.Fprintln(&metrics, m)
	}
	if err != nil {
		t.Error(err)
	}
	for where, text := range map[string]string{"log": lines, "memory": string(all), "server's log": r.log.String(), "metrics": metrics.String()} {
		for _, secret := range secrets {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("%.20q is in the %s: …%s…", secret, where, text[max(at-100, 0):min(at+100, len(text))])
			}
		}
	}
}

// What a rule read is told where it did not allow, but for what may hold secrets.
func TestValuesAreRecorded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.recorded(t, f.gatewayState(t), nil)
	c := f.atGateway(t).header("x-role", "secret-role")
	c.route, c.method, c.path = "admin", "POST", "/admin/7"
	check(t, r.Server, c.request())
	got := fmt.Sprint(r.ring.Last(1, nil)[0].Values)
	if want := `[{user.groups ["sales"]} {params.id "7"} {request.headers.x-role (not kept)}]`; got != want {
		t.Errorf("values are %s, want %s", got, want)
	}
}

// A03: what shall not be told is told nowhere: not in the log, not in memory,
// not in what the rule read, not in errors, not in what the server says.
func TestRecordsAreRedacted(t *testing.T) {
	t.Parallel()
	for how, key := range map[string][]byte{"hash": hashKey, "omit": nil} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.gateway.Decisions = &chancerypb.Decisions{User: how, Tenant: how, Client: how, Ip: how, Path: how}
			f.gateway.Routes[1].Allow = `params.id == 'no' || user.id == 'no' || tenant == 'no' || client.id == 'no' || request.ip == 'no' || request.path == 'no' || request.raw_path == 'no' || user.groups.exists(g, int(user.id) == 1)`
			r := f.recorded(t, f.gatewayState(t), key)
			c := f.atGateway(t).authorization("Bearer " + f.token(t, map[string]any{"sub": "personal-user", "tenant": "personal-tenant", "client_id": "personal-client"}))
			c.route, c.method, c.path, c.ip = "admin", "POST", "/admin/personal-id", "192.0.2.77"
			if _, o := check(t, r.Server, c.request()); o.reason != "policy_error" {
				t.Fatalf("answered %+v", o)
			}
			c.route, c.method, c.path = "orders", "GET", "/orders/personal-id"
			check(t, r.Server, c.request())
			all, err := json.Marshal(r.ring.Last(10, nil))
			if err != nil {
				t.Fatal(err)
			}
			lines := r.lines()
			for _, text := range []string{lines, string(all), r.log.String()} {
				if strings.Contains(text, "personal") || strings.Contains(text, "192.0.2") {
					t.Errorf("told: %s", text)
				}
			}
			if strings.Count(lines, "hmac:") != map[string]int{"hash": 10, "omit": 0}[how] {
				t.Errorf("lines are %s", lines)
			}
		})
	}
}

// With a log that is required and cannot be written, nobody is let in, nor told
// anything else.
func TestRequiredLog(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Decisions = &chancerypb.Decisions{Log: chancerypb.Decisions_REQUIRED}
	state := f.gatewayState(t)
	good, bad := f.atGateway(t), f.atGateway(t).authorization("Bearer nonsense")
	works := f.recorded(t, state, nil)
	for _, row := range []struct {
		call call
		want int
	}{{good, 200}, {bad, 401}} {
		if _, o := check(t, works.Server, row.call.request()); o.status != row.want {
			t.Errorf("answered %+v, want %d", o, row.want)
		}
	}
	broken := f.recorded(t, state, nil)
	broken.lines() // the log ends
	for _, c := range []call{good, bad} {
		response, o := check(t, broken.Server, c.request())
		if o.status != 503 || o.reason != audit.ReasonUnavailable || response.GetOkResponse() != nil {
			t.Errorf("answered %+v", o)
		}
		if e := broken.ring.Last(1, nil)[0]; e.Decision.Decision != audit.Deny || e.Reason != audit.ReasonUnavailable || e.Status != 503 {
			t.Errorf("kept %+v", e)
		}
	}
}

// T17: on a full disk nobody is let in whose record is not on it, and nobody waits
// to hear so as long as for a disk that is slow; ten seconds after there is room, they are let in
// again.
func TestRequiredLogOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("mounting needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	path, ballast := filepath.Join(dir, "decisions.jsonl"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 400<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.gateway.Decisions = &chancerypb.Decisions{Log: chancerypb.Decisions_REQUIRED}
	r := f.recordedIn(t, path, f.gatewayState(t), nil)
	allowed := map[string]bool{}
	ask := func() bool {
		begin := time.Now()
		response, o := check(t, r.Server, f.atGateway(t).request())
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("answered after %v", took)
		}
		if o.status == 200 {
			allowed[response.GetDynamicMetadata().GetFields()["decision"].GetStringValue()] = true
		} else if o.reason != audit.ReasonUnavailable {
			t.Errorf("answered %+v", o)
		}
		return o.status == 200
	}
	refused := 0
	for range 1000 {
		if !ask() {
			refused++
		}
	}
	if refused < 500 || len(allowed) == 0 {
		t.Errorf("%d allowed, %d refused", len(allowed), refused)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); !ask(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("not let in again after ten seconds")
		}
	}
	for raw := range strings.Lines(r.lines()) {
		var d audit.Decision
		if err := json.Unmarshal([]byte(raw), &d); err != nil {
			t.Fatalf("line %q: %v", raw, err)
		}
		if d.Decision == audit.Allow {
			delete(allowed, d.ID)
		}
	}
	if len(allowed) > 0 {
		t.Errorf("%d were let in without a record", len(allowed))
	}
}

// A policy may want no log; decisions can be explained even so.
func TestLogIsOff(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Decisions = &chancerypb.Decisions{Log: chancerypb.Decisions_OFF}
	r := f.recorded(t, f.gatewayState(t), nil)
	check(t, r.Server, f.atGateway(t).request())
	if lines, kept := r.lines(), r.ring.Last(10, nil); lines != "" || len(kept) != 1 {
		t.Errorf("logged %q, kept %+v", lines, kept)
	}
}

// What shall be hashed and cannot be is not told, and then nobody is let in.
func TestHashingWithoutAKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gateway.Decisions = &chancerypb.Decisions{User: "hash"}
	r := f.recorded(t, f.gatewayState(t), nil)
	_, o := check(t, r.Server, f.atGateway(t).request())
	all, err := json.Marshal(r.ring.Last(10, nil))
	if o.status != 503 || err != nil || bytes.Contains(all, []byte("alice")) || strings.Contains(r.lines(), "alice") {
		t.Errorf("answered %+v, kept %s, %v", o, all, err)
	}
}

func TestCompileRefusesUnknownRecording(t *testing.T) {
	t.Parallel()
	for _, d := range []*chancerypb.Decisions{{Log: 7}, {User: "hide"}, {Ip: "route"}} {
		f := newFixture(t)
		f.gateway.Decisions = d
		if _, err := extauthz.Compile(f.gateway); err == nil {
			t.Errorf("compiled %v", d)
		}
	}
}

// Kept decisions are found by the ID that the client was told.
func TestDenialsAreFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.recorded(t, f.gatewayState(t), nil)
	var told []string
	for range 3 {
		response, _ := check(t, r.Server, f.atGateway(t).authorization().request())
		told = append(told, response.GetDynamicMetadata().GetFields()["decision"].GetStringValue())
		check(t, r.Server, f.atGateway(t).request())
	}
	var found []string
	for _, e := range r.ring.Last(10, func(e *audit.Explained) bool { return e.Decision.Decision == audit.Deny }) {
		found = append(found, e.ID)
	}
	slices.Reverse(found)
	if !slices.Equal(told, found) {
		t.Errorf("told %v, found %v", told, found)
	}
}

// BenchmarkRecord is what recording adds to a decision: to who decides, and to
// the writer of the log.
func BenchmarkRecord(b *testing.B) {
	f := newFixture(b)
	var record *extauthz.Record
	s, err := extauthz.New(extauthz.Config{
		Logger: slog.New(slog.DiscardHandler), Signer: func() *passport.Signer { return f.signer },
		Record: func(r *extauthz.Record) error { record = r; return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	s.SetState(f.gatewayState(b))
	check(b, s, f.atGateway(b).request())
	sink, err := audit.NewFile(audit.FileConfig{Path: filepath.Join(b.TempDir(), "d"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	log, stop := runLog(b, sink)
	keeper := decisions.New(decisions.Config{Log: log, Ring: audit.NewRing(0, 0)})
	b.ReportAllocs()
	begin := processorTime(b)
	for n := 0; b.Loop(); n++ {
		if err := keeper.Record(record); err != nil {
			b.Fatal(err)
		}
		if n%1000 == 999 {
			time.Sleep(25 * time.Millisecond) // let the writer catch up, as at 40,000 a second
		}
	}
	stop()
	b.ReportMetric(float64((processorTime(b)-begin).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
