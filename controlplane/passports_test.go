package controlplane_test

import (
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/passport"
)

const (
	endorsedLife = 24 * time.Hour
	owner        = "spiffe://shop.example/gateway/public"
)

// openPassportKeys returns the control plane's, of gateway public, at a file.
func openPassportKeys(t *testing.T, path string) controlplane.PassportKeys {
	t.Helper()
	keys, err := controlplane.OpenPassportKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	keys.UseScopes("shop.example", map[string]controlplane.Scope{"public": {Providers: []string{"staff"}}})
	return keys
}

// settledPassportKeys are keys of a control plane that has been there for a while.
func settledPassportKeys(t *testing.T, dir string) controlplane.PassportKeys {
	t.Helper()
	keys := openPassportKeys(t, dir+"/keys.json")
	time.Sleep(time.Minute)
	return keys
}

func endorse(t *testing.T, keys controlplane.PassportKeys, lineage string, jwks ...[]byte) {
	t.Helper()
	if err := keys.EndorseFor("public", lineage, endorsedLife, jwks...); err != nil {
		t.Fatal(err)
	}
}

func wantReady(t *testing.T, keys controlplane.PassportKeys, want ...string) {
	t.Helper()
	keys.Expire()
	slices.Sort(want)
	if got := keys.Ready("public"); !slices.Equal(got, want) {
		t.Errorf("ready %v, want %v", got, want)
	}
}

func version(keys controlplane.PassportKeys) string {
	_, v := keys.Published("public")
	return v
}

func published(t *testing.T, keys controlplane.PassportKeys) passport.KeySet {
	t.Helper()
	m, _ := keys.Published("public")
	set, err := passport.ParseKeySet(m.GetJwks(), owner)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A clock that is ahead for a while takes no key from a gateway.
func TestPassportKeysOutliveAClockThatJumps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys, err := controlplane.OpenPassportKeys(dir + "/keys.json")
		if err != nil {
			t.Fatal(err)
		}
		keys.Use("shop.example", []string{"public"})
		jwk, _ := newPassportKey(t)
		if err := keys.Endorse("public", jwk); err != nil {
			t.Fatal(err)
		}
		var ahead time.Duration
		keys.SetClock(&ahead)
		time.Sleep(25 * time.Hour)
		for _, step := range []struct {
			ahead time.Duration
			held  int
		}{{48 * time.Hour, 1}, {0, 0}} {
			ahead = step.ahead
			keys.Expire()
			if n := keys.Held("public"); n != step.held {
				t.Errorf("with the clock %v ahead %d keys are held, want %d", step.ahead, n, step.held)
			}
		}
	})
}

func TestKeyIsReadyWhenEveryPDPHasIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := settledPassportKeys(t, dir)
		first, firstID := newPassportKey(t)
		endorse(t, keys, "a", first)
		wantReady(t, keys, firstID) // nobody takes it: nobody lacks it

		one, two := keys.Subscribe("orders 1", orders, version(keys)), keys.Subscribe("orders 2", orders, version(keys))
		stale := keys.Subscribe("inventory 1", inventory, "")
		next, nextID := newPassportKey(t)
		time.Sleep(time.Hour)
		endorse(t, keys, "a", first, next)
		if until := published(t, keys)[firstID].Until; time.Until(until) < endorsedLife-time.Second {
			t.Errorf("the key in use ends %v", until)
		}
		wantReady(t, keys, firstID)
		v := version(keys)
		one.ACK(v)
		stale.ACK(v)
		wantReady(t, keys, firstID)
		two.ACK("another")
		wantReady(t, keys, firstID)
		two.ACK(v)
		wantReady(t, keys, firstID, nextID)

		// What comes later gets all keys before anything else; it takes none
		// back.
		keys.Subscribe("inventory 2", inventory, "")
		wantReady(t, keys, firstID, nextID)
	})
}

func TestPDPThatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := settledPassportKeys(t, dir)
		first, firstID := newPassportKey(t)
		endorse(t, keys, "a", first)
		gone, back := keys.Subscribe("orders 1", orders, version(keys)), keys.Subscribe("inventory 1", inventory, version(keys))
		held := version(keys)
		gone.Leave()
		back.Leave()
		next, nextID := newPassportKey(t)
		endorse(t, keys, "a", first, next)
		wantReady(t, keys, firstID)

		// An agent that has nothing else to sign with does not wait.
		only, onlyID := newPassportKey(t)
		endorse(t, keys, "b", only)
		wantReady(t, keys, firstID, onlyID)

		// One of the two comes back, and holds what it held.
		again := keys.Subscribe("inventory 1", inventory, held)
		time.Sleep(5 * time.Minute)
		again.ACK(version(keys))
		wantReady(t, keys, firstID, onlyID)
		time.Sleep(6 * time.Minute) // the other does not
		wantReady(t, keys, firstID, nextID, onlyID)
	})
}

// Agents connect with each new certificate before they leave the connection that
// they had.
func TestPDPThatConnectsAnewIsNotAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := settledPassportKeys(t, dir)
		first, firstID := newPassportKey(t)
		endorse(t, keys, "a", first)
		held := version(keys)
		before := keys.Subscribe("orders 1", orders, held)
		next, nextID := newPassportKey(t)
		endorse(t, keys, "a", first, next)
		anew := keys.Subscribe("orders 1", orders, held)
		before.Leave()
		wantReady(t, keys, firstID)
		anew.ACK(version(keys))
		wantReady(t, keys, firstID, nextID)
	})
}

func TestPDPThatDoesNotAnswerIsNotWaitedForForever(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := settledPassportKeys(t, dir)
		first, firstID := newPassportKey(t)
		endorse(t, keys, "a", first)
		keys.Subscribe("orders 1", orders, version(keys))
		other := keys.Subscribe("inventory 1", inventory, "")
		next, nextID := newPassportKey(t)
		endorse(t, keys, "a", first, next)
		other.Unsubscribe()
		time.Sleep(endorsedLife/4 - time.Second)
		wantReady(t, keys, firstID)
		time.Sleep(2 * time.Second)
		wantReady(t, keys, firstID, nextID)
	})
}

func TestRestartedControlPlaneWaitsForPDPs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := settledPassportKeys(t, dir)
		first, firstID := newPassportKey(t)
		next, nextID := newPassportKey(t)
		endorse(t, keys, "a", first)
		keys.Expire()
		held := version(keys)

		keys = openPassportKeys(t, dir+"/keys.json")
		wantReady(t, keys, firstID)
		endorse(t, keys, "a", first, next)
		wantReady(t, keys, firstID) // nobody has come back yet
		time.Sleep(5 * time.Second)
		pdp := keys.Subscribe("orders 1", orders, held)
		time.Sleep(6 * time.Second)
		wantReady(t, keys, firstID)
		pdp.ACK(version(keys))
		wantReady(t, keys, firstID, nextID)
	})
}

func TestKeysGoWithTheirCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := settledPassportKeys(t, dir)
		stolen, stolenID := newPassportKey(t)
		other, otherID := newPassportKey(t)
		last, lastID := newPassportKey(t)
		endorse(t, keys, "stolen", stolen)
		endorse(t, keys, "other", other)
		endorse(t, keys, "last", last)
		has := func(want ...string) {
			t.Helper()
			set := published(t, keys)
			for _, id := range []string{stolenID, otherID, lastID} {
				if _, ok := set[id]; ok != slices.Contains(want, id) {
					t.Errorf("key %s: %v", id, ok)
				}
			}
			wantReady(t, keys, want...)
		}
		has(stolenID, otherID, lastID)
		keys.Revoke("stolen")
		has(otherID, lastID)

		fresh, _ := newPassportKey(t)
		for name, err := range map[string]error{
			"with another certificate":    keys.EndorseFor("public", "new", endorsedLife, stolen),
			"with the revoked one":        keys.EndorseFor("public", "stolen", endorsedLife, fresh),
			"of another, beside a fresh":  keys.EndorseFor("public", "new", endorsedLife, fresh, other),
			"of another, another gateway": keys.EndorseFor("partner", "new", endorsedLife, other),
		} {
			if err == nil {
				t.Errorf("endorsed %s", name)
			}
		}
		has(otherID, lastID)

		keys = openPassportKeys(t, dir+"/keys.json")
		has(otherID, lastID)
		if keys.EndorseFor("public", "new", endorsedLife, stolen) == nil {
			t.Error("after a restart: a revoked key came back")
		}
		keys.Retain("other", "new") // what the ledger has
		has(otherID)
	})
}

func TestRevocationHoldsWithoutADisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := settledPassportKeys(t, dir)
		jwk, _ := newPassportKey(t)
		endorse(t, keys, "a", jwk)
		breakDir(t, dir)
		keys.Revoke("a")
		if len(published(t, keys)) > 0 {
			t.Error("published still")
		}
		next, _ := newPassportKey(t)
		if keys.EndorseFor("public", "b", endorsedLife, next) == nil {
			t.Error("endorsed, and not on disk")
		}
		mendDir(t, dir)
		keys.Expire() // as every second
		if keys = openPassportKeys(t, dir+"/keys.json"); len(published(t, keys)) > 0 {
			t.Error("a revoked key is good after a restart")
		}
	})
}

func TestKeysSayWhomTheyMaySpeakFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := settledPassportKeys(t, dir)
		jwk, id := newPassportKey(t)
		// What the agent says of its own key counts for nothing.
		boast := []byte(strings.Replace(string(jwk), "{", `{"providers":["staff","root"],"exp":9999999999,`, 1))
		endorse(t, keys, "a", boast)
		if got := published(t, keys)[id]; !slices.Equal(got.Providers, []string{"staff"}) || got.Tenants != nil ||
			got.Owner != owner || got.Until.Sub(time.Now().Add(endorsedLife)).Abs() > time.Second {
			t.Errorf("key %+v", got)
		}
		keys.UseScopes("shop.example", map[string]controlplane.Scope{"public": {Tenants: []string{"acme"}}})
		keys.ExpireGrants(time.Now().Add(2 * controlplane.ScopeOverlap))
		if got := published(t, keys)[id]; len(got.Providers) != 0 || !slices.Equal(got.Tenants, []string{"acme"}) {
			t.Errorf("key %+v", got)
		}
	})
}

// An agent pushes out its own keys, and nobody else's.
func TestKeysOfOneAgentAreBounded(t *testing.T) {
	t.Parallel()
	keys := openPassportKeys(t, t.TempDir()+"/keys.json")
	other, otherID := newPassportKey(t)
	endorse(t, keys, "other", other)
	var last string
	for range controlplane.MaxPassportKeys {
		var jwk []byte
		jwk, last = newPassportKey(t)
		endorse(t, keys, "rogue", jwk)
	}
	set := published(t, keys)
	for _, id := range []string{otherID, last} {
		if _, ok := set[id]; !ok || len(set) != 1+8 {
			t.Errorf("%d keys, %s among them: %v", len(set), id, ok)
		}
	}
}

// Whoever is revoked leaves room for others, and stays revoked.
func TestRevokedKeysLeaveRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := openPassportKeys(t, dir+"/keys.json")
		var stolen [][]byte
		for i := range controlplane.MaxPassportKeys {
			jwk, _ := newPassportKey(t)
			lineage := strconv.Itoa(i)
			endorse(t, keys, lineage, jwk)
			stolen = append(stolen, jwk)
		}
		fresh, _ := newPassportKey(t)
		if err := keys.Admits("public", "", fresh); err == nil {
			t.Error("there is room before anything is revoked")
		}
		keys.Retain() // none of them
		if err := keys.Admits("public", "", fresh); err != nil {
			t.Errorf("no room: %v", err)
		}
		endorse(t, keys, "fresh", fresh)
		keys = openPassportKeys(t, dir+"/keys.json")
		for _, jwk := range stolen {
			if keys.EndorseFor("public", "new", endorsedLife, jwk) == nil {
				t.Fatal("a revoked key came back")
			}
		}
		time.Sleep(endorsedLife + time.Second)
		keys.Expire()
		if n := keys.Revoked(); n != 0 {
			t.Errorf("%d revoked keys are remembered past their end", n)
		}
	})
}

func TestRevokedKeysAreBounded(t *testing.T) {
	t.Parallel()
	revoked := controlplane.RevokedKeys{}
	now := time.Now()
	for i := range controlplane.MaxRevokedKeys + 10 {
		revoked.Add(strconv.Itoa(i), now.Add(time.Duration(i)))
	}
	if _, last := revoked[strconv.Itoa(controlplane.MaxRevokedKeys+9)]; !last || len(revoked) != controlplane.MaxRevokedKeys {
		t.Errorf("%d are remembered, the last among them: %v", len(revoked), last)
	}
	revoked.Add("ended", now.Add(-1))
	if _, ok := revoked["ended"]; ok {
		t.Error("what ends first took another's place")
	}
}

func TestOffersAreBounded(t *testing.T) {
	t.Parallel()
	keys := openPassportKeys(t, t.TempDir()+"/keys.json")
	var jwks [][]byte
	for range 5 {
		jwk, _ := newPassportKey(t)
		jwks = append(jwks, jwk)
	}
	if err := keys.EndorseFor("public", "a", endorsedLife, jwks...); err == nil {
		t.Error("endorsed five keys at once")
	}
	if err := keys.EndorseFor("public", "a", endorsedLife, jwks[0], []byte("{}")); err == nil || len(published(t, keys)) > 0 {
		t.Errorf("endorsed one of two: %v", err)
	}
}

// Passports always verify at every PDP, with keys that change every minute, PDPs
// that come and go and are slow, several instances, and a control plane that
// restarts.
func TestRotationIsNeverNoticed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const life = 2 * time.Minute
		random := rand.New(rand.NewPCG(1, 2))
		keys := settledPassportKeys(t, dir)
		pdps := []*fakePDP{{lineage: "1"}, {lineage: "2"}, {lineage: "3"}, {lineage: "4"}, {lineage: "5"}}
		for _, p := range pdps {
			p.come(keys)
		}
		type instance struct{ use, next *testKey }
		instances := []*instance{{next: newTestKey(t)}, {next: newTestKey(t)}, {next: newTestKey(t)}}
		verified, changes := 0, 0
		for second := range 30 * 60 {
			for i, in := range instances {
				if (second+20*i)%60 == 0 { // half of a certificate's life
					jwks := [][]byte{}
					if in.next == nil {
						in.next = newTestKey(t)
					}
					for _, k := range []*testKey{in.next, in.use} {
						if k != nil {
							jwks = append(jwks, k.jwk)
							k.until = time.Now().Add(life)
						}
					}
					if err := keys.EndorseFor("public", "lineage "+strconv.Itoa(i), life, jwks...); err != nil {
						t.Fatal(err)
					}
				}
				if in.next != nil && slices.Contains(keys.Ready("public"), in.next.id) {
					in.use, in.next = in.next, nil
					changes++
				}
			}
			if second%400 == 399 {
				keys = openPassportKeys(t, dir+"/keys.json")
				for _, p := range pdps {
					p.comesBack = random.IntN(3) + 1
				}
			}
			for _, p := range pdps {
				p.step(keys, random)
			}
			for _, in := range instances {
				if in.use == nil {
					continue
				}
				token := in.use.mint(t)
				for i, p := range pdps {
					if err := p.verify(token); err != nil {
						t.Fatalf("second %d, PDP %d: %v", second, i, err)
					}
					verified++
				}
			}
			time.Sleep(time.Second)
			keys.Expire()
		}
		if changes < 60 {
			t.Errorf("keys changed %d times in half an hour", changes)
		}
		t.Logf("%d verified, keys changed %d times", verified, changes)
	})
}

// fakePDP takes what it is sent after a while.
type fakePDP struct {
	controlplane.PDP

	lineage   string
	held      string
	set       passport.KeySet
	comesBack int // seconds
	delay     int
}

func (p *fakePDP) come(keys controlplane.PassportKeys) {
	p.PDP = keys.Subscribe(p.lineage, orders, p.held)
}

// step is what happens in a second.
func (p *fakePDP) step(keys controlplane.PassportKeys, random *rand.Rand) {
	if p.comesBack > 0 {
		if p.comesBack--; p.comesBack > 0 {
			return
		}
		p.come(keys)
	}
	m, version := keys.Published("public")
	switch {
	case random.IntN(200) == 0:
		p.Leave()
		p.comesBack = 1 + random.IntN(20)
	case version == p.held:
		p.delay = random.IntN(8)
	case p.delay > 0:
		p.delay--
	default:
		set, err := passport.ParseKeySet(m.GetJwks(), owner)
		if err != nil {
			panic(err)
		}
		p.held, p.set = version, set
		p.ACK(version)
	}
}

func (p *fakePDP) verify(token string) error {
	if p.set == nil {
		return errors.New("no keys")
	}
	v, err := passport.NewVerifier(passport.VerifierConfig{TrustDomain: "shop.example", Keys: p.set})
	if err == nil {
		_, err = v.Verify(token)
	}
	return err
}

// testKey is a gateway's, with both halves.
type testKey struct {
	jwk    []byte
	id     string
	signer *passport.Signer
	until  time.Time
}

func newTestKey(t *testing.T) *testKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := passport.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := passport.EncodeKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &testKey{jwk: jwk, id: signer.KeyID(), signer: signer}
}

func (k *testKey) mint(t *testing.T) string {
	t.Helper()
	token, err := k.signer.Until(k.until).Mint(&passport.Passport{
		ID: "1", Subject: "alice", Audience: "shop.example", Gateway: owner, Provider: "staff",
		IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// breakDir keeps the keys from being written, also by root.
func breakDir(t *testing.T, dir string) {
	t.Helper()
	rename(t, dir+"/keys.json", dir+"/saved")
	if err := os.MkdirAll(dir+"/keys.json/full", 0o700); err != nil {
		t.Fatal(err)
	}
}

func mendDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir + "/keys.json"); err != nil {
		t.Fatal(err)
	}
	rename(t, dir+"/saved", dir+"/keys.json")
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// A gateway's keys speak for whom its document says, and for a while for whom it
// said before: the gateway cannot keep what was taken from it.
func TestScopesFollowTheDocument(t *testing.T) {
	t.Parallel()
	docs := withProvider(down(t).URL, "claims: {tenant: tenant}\n")
	docs["public"] += "tenants: [acme]\n"
	r := start(t, docs)
	if _, err := r.enroll(gateway, newTestKey(t).jwk); err != nil {
		t.Fatal(err)
	}
	speaks := func(tenants ...string) {
		t.Helper()
		r.until("keys speak for "+strings.Join(tenants, ", "), func() bool {
			for _, k := range published(t, controlplane.Passports(r.server)) {
				return slices.Equal(k.Providers, []string{"staff"}) && slices.Equal(k.Tenants, tenants)
			}
			return false
		})
	}
	speaks("acme")
	before := r.accept(gateway)
	r.write("public", strings.Replace(docs["public"], "[acme]", "[globex]", 1))
	r.revised(gateway, before)
	speaks("acme", "globex")
	r.reject(gateway, resource.RouteType, "no", routeConfig)
	if got := r.view(gateway).Revision; got != before {
		t.Errorf("revision %s in quarantine, was %s", got, before)
	}
	keys := controlplane.Passports(r.server)
	keys.ExpireGrants(time.Now().Add(80 * time.Second))
	speaks("acme", "globex")
	keys.ExpireGrants(time.Now().Add(91 * time.Second)) // a Passport's life, and some
	speaks("globex")
}

// What changes again while it overlaps ends no later for it.
func TestFormerScopesEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := openPassportKeys(t, dir+"/keys.json")
		jwk, id := newPassportKey(t)
		endorse(t, keys, "a", jwk)
		speaks := func(providers, tenants []string) {
			t.Helper()
			keys.Expire()
			if k := published(t, keys)[id]; !slices.Equal(k.Providers, providers) || !slices.Equal(k.Tenants, tenants) {
				t.Errorf("key %+v, want %v and %v", k, providers, tenants)
			}
		}
		use := func(tenant string) {
			keys.UseScopes("shop.example", map[string]controlplane.Scope{"public": {Tenants: []string{tenant}}})
		}
		use("acme")
		time.Sleep(controlplane.ScopeOverlap / 2)
		use("globex")
		speaks([]string{"staff"}, nil) // any tenant's
		time.Sleep(controlplane.ScopeOverlap/2 + 1)
		speaks(nil, []string{"acme", "globex"})
		time.Sleep(controlplane.ScopeOverlap / 2)
		speaks(nil, []string{"globex"})
	})
}
