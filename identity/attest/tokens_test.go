package attest_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/attest"
)

var (
	orders = identity.ID{Role: identity.RoleService, Name: "orders"}
	public = identity.ID{Role: identity.RoleGateway, Name: "public"}
	pins   = identity.PinsOfRoots([][]byte{[]byte("root"), []byte("next root")})
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// openAudit returns a log and how to read it.
func openAudit(t *testing.T) (*audit.Log, func() []audit.Event) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log, func() (events []audit.Event) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			var e audit.Event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
		return events
	}
}

// refused fails unless err says why.
func refused(t *testing.T, err error, why string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("error is %v, want one with %q", err, why)
	}
}

// redeemError is what Redeem says that is wrong.
func redeemError(_ string, err error) error { return err }

func openTokens(t *testing.T, path string, log *audit.Log) *attest.Tokens {
	t.Helper()
	tokens, err := attest.OpenTokens(path, log)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func create(t *testing.T, tokens *attest.Tokens, id identity.ID, ttl time.Duration) string {
	t.Helper()
	text, _, err := tokens.Create(id, ttl, pins, "operator")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTokenIsBoundToItsFirstKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.json")
	tokens := openTokens(t, path, nil)
	text := create(t, tokens, orders, time.Minute)
	if got, err := attest.PinsOfToken(text + "\n"); err != nil || got.String() != pins.String() {
		t.Errorf("pins are %v, %v", got, err)
	}
	key := newKey(t).Public()
	lineage, err := tokens.Redeem(text+"\n", orders, key, "127.0.0.1")
	if err != nil || lineage == "" {
		t.Fatalf("lineage %q, %v", lineage, err)
	}
	// The control plane dies before it answers, or the agent before it hears.
	again := openTokens(t, path, nil)
	if same, err := again.Redeem(text, orders, key, "127.0.0.1"); err != nil || same != lineage {
		t.Errorf("the same key after a crash: lineage %q, then %q, %v", lineage, same, err)
	}
	refused(t, redeemError(again.Redeem(text, orders, newKey(t).Public(), "127.0.0.1")), "refused")
	if list := again.List(); len(list) != 1 || list[0].Used.IsZero() || list[0].Workload != orders {
		t.Errorf("list is %+v", list)
	}
}

func TestRedeemRefuses(t *testing.T) {
	t.Parallel()
	const hint = "join token refused; ask for a new one: chancery token create --service orders"
	tests := map[string]struct {
		spoil  func(text string) string
		pause  time.Duration
		id     identity.ID
		reason string
	}{
		"expired":           {pause: time.Minute, id: orders, reason: "it expired at"},
		"long gone":         {pause: 3 * time.Hour, id: orders, reason: "it expired at"},
		"for another":       {id: identity.ID{Role: identity.RoleService, Name: "order"}, reason: "it is for service/orders"},
		"for another role":  {id: identity.ID{Role: identity.RoleGateway, Name: "orders"}, reason: "it is for service/orders"},
		"unknown":           {spoil: func(s string) string { return "chj_0123456789abcdef" + s[20:] }, id: orders, reason: "it is unknown"},
		"wrong secret":      {spoil: func(s string) string { return s[:21] + strings.Repeat("0", 64) + s[85:] }, id: orders, reason: "its secret is wrong"},
		"short secret":      {spoil: func(s string) string { return s[:21] + s[85:] }, id: orders, reason: "it is no join token"},
		"another kind":      {spoil: func(s string) string { return "x" + s }, id: orders, reason: "it is no join token"},
		"no pins":           {spoil: func(s string) string { return s[:86] }, id: orders, reason: "pin is not"},
		"nothing":           {spoil: func(string) string { return "" }, id: orders, reason: "it is no join token"},
		"more than a token": {spoil: func(s string) string { return s + strings.Repeat(" a", 3000) }, id: orders, reason: "it is no join token"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, events := openAudit(t)
			path := filepath.Join(t.TempDir(), "tokens.json")
			synctest.Test(t, func(t *testing.T) {
				tokens := openTokens(t, path, log)
				text := create(t, tokens, orders, time.Minute)
				time.Sleep(tt.pause)
				if tt.spoil != nil {
					text = tt.spoil(text)
				}
				_, err := tokens.Redeem(text, tt.id, newKey(t).Public(), "10.0.0.7")
				want := strings.Replace(hint, "service orders", fmt.Sprintf("%s %s", tt.id.Role, tt.id.Name), 1)
				if err == nil || err.Error() != want {
					t.Errorf("error is %v, want %q", err, want)
				}
			})
			last := events()[len(events())-1]
			if last.Outcome != audit.Refused || !strings.HasPrefix(last.Reason, tt.reason) || last.By != "10.0.0.7" {
				t.Errorf("audit has %+v, want reason %q", last, tt.reason)
			}
		})
	}
}

func TestRedeemRefusesWeakKeys(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, filepath.Join(t.TempDir(), "tokens.json"), nil)
	text := create(t, tokens, orders, time.Minute)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.PublicKey{nil, weak.Public()} {
		if _, err := tokens.Redeem(text, orders, key, ""); err == nil {
			t.Errorf("redeemed for %T", key)
		}
	}
	if _, err := tokens.Redeem(text, orders, newKey(t).Public(), ""); err != nil {
		t.Errorf("a refused key used the token up: %v", err)
	}
}

// Of many who hold one token only one gets in.
func TestRedeemTogether(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, filepath.Join(t.TempDir(), "tokens.json"), nil)
	text := create(t, tokens, public, time.Minute)
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		key := newKey(t).Public()
		wg.Go(func() {
			if _, err := tokens.Redeem(text, public, key, ""); err == nil {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d got in", in.Load())
	}
}

func TestSecretsAreNotKept(t *testing.T) {
	t.Parallel()
	log, events := openAudit(t)
	path := filepath.Join(t.TempDir(), "tokens.json")
	tokens := openTokens(t, path, log)
	text := create(t, tokens, orders, time.Minute)
	if _, err := tokens.Redeem(text, orders, newKey(t).Public(), ""); err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(text, "_")[2]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	told, err := json.Marshal(events())
	if err != nil {
		t.Fatal(err)
	}
	if len(events()) != 2 || bytes.Contains(data, []byte(secret)) || bytes.Contains(told, []byte(secret)) {
		t.Errorf("the secret is in the file or in the audit: %s", told)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A change that is not on disk did not happen.
func TestTokensNeedTheirDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	tokens := openTokens(t, filepath.Join(dir, "tokens.json"), nil)
	text := create(t, tokens, orders, time.Minute)
	if err := os.Rename(dir, dir+"-gone"); err != nil {
		t.Fatal(err)
	}
	key := newKey(t).Public()
	refused(t, redeemError(tokens.Redeem(text, orders, key, "")), "cannot write its state")
	if _, _, err := tokens.Create(orders, time.Minute, pins, ""); err == nil {
		t.Error("created")
	}
	if list := tokens.List(); len(list) != 1 || !list[0].Used.IsZero() {
		t.Errorf("list is %+v", list)
	}
	if err := os.Rename(dir+"-gone", dir); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Redeem(text, orders, newKey(t).Public(), ""); err != nil {
		t.Errorf("with the disk back, another key: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, filepath.Join(t.TempDir(), "tokens.json"), nil)
	for name, tt := range map[string]struct {
		id   identity.ID
		ttl  time.Duration
		pins identity.Pins
	}{
		"the control plane": {identity.ControlPlane, time.Minute, pins},
		"nobody":            {identity.ID{}, time.Minute, pins},
		"too short":         {orders, 9 * time.Second, pins},
		"too long":          {orders, 24*time.Hour + 1, pins},
		"no pins":           {orders, time.Minute, identity.Pins{}},
	} {
		if _, _, err := tokens.Create(tt.id, tt.ttl, tt.pins, ""); err == nil {
			t.Errorf("%s: created", name)
		}
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, filepath.Join(t.TempDir(), "tokens.json"), nil)
	text, token, err := tokens.Create(orders, time.Minute, pins, "operator")
	if err := errors.Join(err, tokens.Delete(token.ID, "operator")); err != nil {
		t.Fatal(err)
	}
	refused(t, redeemError(tokens.Redeem(text, orders, newKey(t).Public(), "")), "refused")
	refused(t, tokens.Delete(token.ID, "operator"), "no such token")
}

func TestOpenTokensRefuses(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"a file that others read": func(path string) error { return os.Chmod(path, 0o644) },
		"half a file":             func(path string) error { return os.Truncate(path, 100) },
		"an empty file":           func(path string) error { return os.Truncate(path, 0) },
		"a token without a hash": func(path string) error {
			return os.WriteFile(path, []byte(`[{"id":"a","workload":"service/orders","secret_sha256":""}]`), 0o600)
		},
		"a token of the control plane": func(path string) error {
			return os.WriteFile(path, fmt.Appendf(nil, `[{"id":"a","workload":"control-plane","secret_sha256":"%064d"}]`, 0), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "tokens.json")
			create(t, openTokens(t, path, nil), orders, time.Minute)
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			if _, err := attest.OpenTokens(path, nil); err == nil {
				t.Error("opened")
			}
		})
	}
}

func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.json")
	now := time.Now()
	var file []map[string]any
	for n := range 10_000 {
		file = append(file, map[string]any{
			"id": fmt.Sprint(n), "workload": "service/orders", "created": now, "expires": now.Add(time.Hour),
			"secret_sha256": strings.Repeat("0", 64),
		})
	}
	write := func() {
		data, err := json.Marshal(file)
		if err := errors.Join(err, os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write()
	_, _, err := openTokens(t, path, nil).Create(orders, time.Minute, pins, "")
	refused(t, err, "10000 join tokens")
	file[17]["expires"] = now.Add(-2 * time.Hour)
	write()
	if _, _, err := openTokens(t, path, nil).Create(orders, time.Minute, pins, ""); err != nil {
		t.Errorf("one of them ended: %v", err)
	}
}

// What was revoked does not come back with the token that it came with, also
// when that cannot be written down; tokens that nobody used stay.
func TestDeleteUsed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	log, events := openAudit(t)
	tokens := openTokens(t, filepath.Join(dir, "tokens.json"), log)
	keys := []crypto.PublicKey{newKey(t).Public(), newKey(t).Public()}
	var texts, lineages []string
	for _, key := range keys {
		text := create(t, tokens, orders, time.Minute)
		lineage, err := tokens.Redeem(text, orders, key, "")
		if err != nil {
			t.Fatal(err)
		}
		texts, lineages = append(texts, text), append(lineages, lineage)
	}
	create(t, tokens, orders, time.Minute)
	if lineages[0] == lineages[1] {
		t.Error("two tokens share a lineage")
	}
	err := tokens.DeleteUsed(func(t attest.Token) bool { return t.Lineage == lineages[0] }, "operator")
	if err != nil {
		t.Fatal(err)
	}
	if last := events()[len(events())-1]; last.Event != "join token deleted" || last.By != "operator" {
		t.Errorf("audit has %+v", last)
	}
	tokens = openTokens(t, filepath.Join(dir, "tokens.json"), log)
	refused(t, redeemError(tokens.Redeem(texts[0], orders, keys[0], "")), "refused")
	if _, err := tokens.Redeem(texts[1], orders, keys[1], ""); err != nil {
		t.Errorf("another agent's: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := tokens.DeleteUsed(func(attest.Token) bool { return true }, "operator"); err == nil {
		t.Error("nobody hears that it is not on disk")
	}
	refused(t, redeemError(tokens.Redeem(texts[1], orders, keys[1], "")), "refused")
	if list := tokens.List(); len(list) != 1 || !list[0].Used.IsZero() {
		t.Errorf("left are %+v", list)
	}
}
