package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/extauthz/wire"
	"github.com/chancery-mesh/chancery/passport"
)

// TestMain is the servers' process, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "-serve" {
		if err := serve(os.Args[2], os.Args[4]); err != nil {
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

func newTestWorld(t *testing.T) (*world, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench-") // t.TempDir's paths are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w, err := newWorld(filepath.Join(dir, worldFile))
	if err != nil {
		t.Fatal(err)
	}
	return w, dir
}

// Every server answers every check as it must, with headers of both kinds.
func TestServersAnswerRight(t *testing.T) {
	t.Parallel()
	for _, raw := range []bool{false, true} {
		w, dir := newTestWorld(t)
		b := &bench{options: options{rounds: 1, turn: 50 * time.Millisecond, raw: raw}, world: w, dir: dir, servers: map[string]*process{}}
		all, err := b.table(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows := all.only("transport,floor-w2,w1,w2,w3-repeat")
		err = errors.Join(b.run(t.Context(), rows), b.close())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			one := r.turns[0]
			if one.checks == 0 || one.wrong > 0 || one.used.CPU <= 0 || one.used.Objects == 0 {
				t.Errorf("%s, raw headers %t: %d checks, %d wrong, used %+v", r.name, raw, one.checks, one.wrong, one.used)
			}
		}
		// It is measured with the decision log.
		if text, err := os.ReadFile(filepath.Join(dir, serverMints+".jsonl")); err != nil || !bytes.Contains(text, []byte(`"decision":"allow"`)) {
			t.Errorf("decision log: %v", err)
		}
	}
}

// passports returns who verifies Passports, and who makes them.
func passports(t *testing.T) (v *passport.Verifier, mint func(subject string) []byte) {
	t.Helper()
	w, _ := newTestWorld(t)
	v, err := passport.NewVerifier(passport.VerifierConfig{TrustDomain: domain, Keys: w.passportKeys()})
	if err != nil {
		t.Fatal(err)
	}
	return v, func(subject string) []byte {
		token, err := w.signer.Mint(&passport.Passport{
			ID: "1", Subject: subject, Audience: domain, Gateway: gatewayID, Provider: provider,
			IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
		})
		if err != nil {
			t.Error(err)
		}
		return []byte(token)
	}
}

func TestJudges(t *testing.T) {
	t.Parallel()
	v, mint := passports(t)
	of := func(subject string) *wire.Response {
		return &wire.Response{Allowed: true, Set: []wire.Pair{{Name: "txn-token", Value: string(mint(subject))}}}
	}
	message := ok()
	message.Status.Code = int32(codes.PermissionDenied)
	contradiction, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := &call{status: http.StatusOK, user: "alice"}, &call{status: http.StatusForbidden}
	for name, row := range map[string]struct {
		call     *call
		response []byte
		judge    judge
		right    bool
	}{
		"allowed":                {good, (&wire.Response{Allowed: true}).Append(nil), decides, true},
		"forbidden":              {bad, (&wire.Response{Status: 403}).Append(nil), decides, true},
		"denied, must not be":    {good, (&wire.Response{Status: 403}).Append(nil), decides, false},
		"allowed, must not be":   {bad, (&wire.Response{Allowed: true}).Append(nil), decides, false},
		"another status":         {bad, (&wire.Response{Status: 401}).Append(nil), decides, false},
		"nothing":                {good, nil, decides, false},
		"contradiction":          {good, contradiction, takesAnything, false},
		"Passport":               {good, of("alice").Append(nil), mints(v), true},
		"Passport of another":    {good, of("bob").Append(nil), mints(v), false},
		"no Passport":            {good, (&wire.Response{Allowed: true}).Append(nil), mints(v), false},
		"Passport with a denial": {bad, of("alice").Append(nil), mints(v), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answers := []answer{{call: row.call, response: row.response}}
			if n, err := row.judge.wrong(answers); (n == 0) != row.right || (err == nil) != row.right {
				t.Errorf("%d wrong: %v", n, err)
			}
		})
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	turns := func(us ...int) (list []turn) {
		for _, n := range us {
			list = append(list, turn{checks: 10, used: usage{CPU: time.Duration(10*n) * time.Microsecond}})
		}
		return list
	}
	base := &row{turns: turns(10, 20, 40)}
	r := &row{base: base, turns: turns(20, 30, 44)}
	if r.cpu() != 30 || r.ratio() != 1.5 || r.above() != 10 {
		t.Errorf("CPU %v, ratio %v, above %v", r.cpu(), r.ratio(), r.above())
	}
	kept := figures{Rounds: 9, W1: 1.3, W2: 1.95, W3: 2.6, W3Repeat: 1.4, NewVsFloor: 1.15, EnvoyW1Above: new(20.0), EnvoyW2Above: new(45.0)}
	if err := kept.promises(); err != nil || kept.unjudged() != "" {
		t.Error(err, kept.unjudged())
	}
	broken := figures{
		Rounds: 9, W1: 1.31, W2: 1.96, W3: 2.61, W3Repeat: 1.41, NewVsFloor: 1.16, EnvoyW1Above: new(21.0), EnvoyW2Above: new(46.0), Wrong: 1,
	}
	faults := func() int {
		var list interface{ Unwrap() []error }
		if !errors.As(broken.promises(), &list) {
			return 0
		}
		return len(list.Unwrap())
	}
	if faults() != 8 {
		t.Errorf("got %v", broken.promises())
	}
	broken.EnvoyW1Above, broken.EnvoyW2Above = nil, nil
	if faults() != 6 || !strings.Contains(broken.unjudged(), "Envoy") {
		t.Errorf("without Envoy: %q, %v", broken.unjudged(), broken.promises())
	}
	if text, err := json.Marshal(broken); err != nil || !strings.Contains(string(text), `"envoy_w1_above_null_us":null`) {
		t.Errorf("%s, %v", text, err)
	}
	broken.Rounds = 8
	if faults() != 1 || !strings.Contains(broken.unjudged(), "rounds") {
		t.Errorf("eight rounds: %q, %v", broken.unjudged(), broken.promises())
	}
}

// A Passport that goes on through Envoy is judged where the answer tells it.
func TestJudgeThroughEnvoy(t *testing.T) {
	t.Parallel()
	v, of := passports(t)
	for name, row := range map[string]struct {
		answer answer
		right  bool
	}{
		"judged":              {answer{call: &call{status: 200, user: "alice", judged: true}, http: 200, response: of("alice")}, true},
		"Passport of another": {answer{call: &call{status: 200, user: "alice", judged: true}, http: 200, response: of("bob")}, false},
		"no Passport":         {answer{call: &call{status: 200, user: "alice", judged: true}, http: 200}, false},
		"not told":            {answer{call: &call{status: 200, user: "alice"}, http: 200}, true},
		"another status":      {answer{call: &call{status: 200, user: "alice"}, http: 403}, false},
	} {
		if err := answeredWith(v)(row.answer); (err == nil) != row.right {
			t.Errorf("%s: %v", name, err)
		}
	}
}
