package sidecar_test

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/passport"
	"github.com/chancery-mesh/chancery/sidecar"
)

const certificateLife = 24 * time.Hour

// gatewayKeys are a gateway's keys for Passports, as a control plane sees them.
type gatewayKeys struct {
	sidecar.PassportKeys

	t *testing.T
}

func newGatewayKeys(t *testing.T, dir string) gatewayKeys {
	t.Helper()
	return gatewayKeys{sidecar.NewPassportKeys(dir, slog.New(slog.DiscardHandler)), t}
}

// offer returns the ids of what is offered.
func (k gatewayKeys) offer(joins bool) (ids []string) {
	k.t.Helper()
	jwks, err := k.Offer(joins)
	check(k.t, err)
	for _, jwk := range jwks {
		id, _, err := passport.ParseKey(jwk, "spiffe://shop.example/gateway/public")
		check(k.t, err)
		ids = append(ids, id)
	}
	return ids
}

func (k gatewayKeys) endorsed() {
	k.t.Helper()
	check(k.t, k.Endorsed(time.Now().Add(certificateLife)))
}

func (k gatewayKeys) readied(ids ...string) {
	k.t.Helper()
	check(k.t, k.Readied(ids))
}

// signs checks what Passports are signed with, if anything.
func (k gatewayKeys) signs(want string) {
	k.t.Helper()
	got := ""
	if s := k.Signer(); s != nil {
		got = s.KeyID()
	}
	if got != want {
		k.t.Errorf("signs with %q, want %q", got, want)
	}
}

func TestPassportKeysOverlap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := newGatewayKeys(t, dir)
		first := k.offer(true)
		if len(first) != 1 {
			t.Fatalf("offers %v", first)
		}
		k.signs("")
		k.endorsed()
		k.signs("") // not every PDP has it
		k.readied(first...)
		k.signs(first[0])

		time.Sleep(certificateLife / 2)
		both := k.offer(false)
		if len(both) != 2 || both[1] != first[0] || both[0] == first[0] {
			t.Fatalf("offers %v after %v", both, first)
		}
		if again := k.offer(false); again[0] != both[0] || again[1] != both[1] {
			t.Errorf("asked again, offers %v, not %v", again, both)
		}
		k.endorsed()
		k.signs(first[0])
		time.Sleep(certificateLife * 3 / 4) // the first was endorsed again, too
		k.signs(first[0])
		k.readied(first[0], both[0])
		k.signs(both[0])
		k.readied(first...) // an old message
		k.signs(both[0])
		time.Sleep(certificateLife / 4)
		k.signs("") // it has ended
	})
}

func TestPassportKeyThatIsReadyBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := newGatewayKeys(t, dir)
		ids := k.offer(true)
		k.readied(ids...)
		k.signs("")
		k.endorsed()
		k.signs(ids[0])
	})
}

func TestPassportKeysSurviveRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := newGatewayKeys(t, dir)
		first := k.offer(true)
		again := newGatewayKeys(t, dir)
		if ids := again.offer(false); ids[0] != first[0] {
			t.Error("offers another key than the one on the disk")
		}
		again.endorsed()
		again.readied(first...)

		// The control plane is away, and the agent starts.
		k = newGatewayKeys(t, dir)
		k.signs(first[0])
		both := k.offer(false)
		k.endorsed()
		k = newGatewayKeys(t, dir)
		k.signs(first[0])
		k.readied(both[0])
		k = newGatewayKeys(t, dir)
		k.signs(both[0])
		time.Sleep(certificateLife)
		k.signs("")
		newGatewayKeys(t, dir).signs("")
	})
}

// A PDP that does not answer must not keep a gateway from serving that has
// nothing else to sign with.
func TestPassportKeyIsUsedInTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := newGatewayKeys(t, dir)
		ids := k.offer(true)
		k.endorsed()
		time.Sleep(9 * time.Second)
		k.signs("")
		k.readied("another's")
		time.Sleep(2 * time.Second)
		k.signs(ids[0])
		if next := k.offer(false); len(next) != 1 || next[0] != ids[0] {
			t.Errorf("offers %v, though %v is not everywhere yet", next, ids)
		}
		k.endorsed()
		k.signs(ids[0])
	})
}

// What was endorsed with an earlier certificate may have been revoked with it.
func TestAgentThatJoinsOffersAFreshKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := newGatewayKeys(t, dir)
		lost := k.offer(true) // and the answer was lost
		first := k.offer(true)
		if first[0] == lost[0] {
			t.Error("offers a key again that may be endorsed already")
		}
		k.endorsed()
		k.readied(first...)
		second := k.offer(true)
		if len(second) != 1 || second[0] == first[0] {
			t.Errorf("offers %v, which was endorsed before: %v", second, first)
		}
		k.endorsed()
		k.signs(first[0])
		k.readied(second...)
		k.signs(second[0])
		check(t, k.Forget())
		k.signs("")
		newGatewayKeys(t, dir).signs("")
	})
}

func TestPassportsEndWithTheirKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := newGatewayKeys(t, dir)
		ids := k.offer(true)
		k.endorsed()
		k.readied(ids...)
		time.Sleep(certificateLife - 20*time.Second)
		token, err := k.Signer().Mint(&passport.Passport{
			ID: "1", Subject: "alice", Audience: "shop.example", Gateway: "spiffe://shop.example/gateway/public",
			IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
		})
		check(t, err)
		p, _, err := passport.Inspect(token)
		check(t, err)
		if left := time.Until(p.ExpiresAt); left != 20*time.Second {
			t.Errorf("a Passport for %v, of a key for 20s", left)
		}
	})
}

func TestPassportKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := newGatewayKeys(t, dir)
	k.offer(true)
	k.endorsed()
	path := dir + "/passport.key"
	info, err := os.Stat(path)
	check(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	good, err := os.ReadFile(path)
	check(t, err)
	for name, bad := range map[string]string{
		"garbage after":  string(good) + "x",
		"another kind":   strings.ReplaceAll(string(good), "PRIVATE KEY", "CERTIFICATE"),
		"not a date":     strings.Replace(string(good), "Endorsed-Until: 2", "Endorsed-Until: x", 1),
		"nothing in it":  "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
		"not PEM at all": "secret",
	} {
		check(t, os.WriteFile(path, []byte(bad), 0o600))
		if err := sidecar.LoadPassportKeys(dir); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
