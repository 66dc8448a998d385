package controlplane_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/passport"
)

func newCSR(t testing.TB) (csr []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"evil"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr, key
}

// newPassportKey returns the public JWK of a new key, and its id.
func newPassportKey(t *testing.T) (jwk []byte, id string) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err = passport.EncodeKey(public)
	if err != nil {
		t.Fatal(err)
	}
	id, err = passport.Thumbprint(public)
	if err != nil {
		t.Fatal(err)
	}
	return jwk, id
}

// enroll enrolls as a workload.
func (r *rig) enroll(id identity.ID, passportKeys ...[]byte) (*chancerypb.EnrollResponse, error) {
	r.t.Helper()
	csr, _ := newCSR(r.t)
	return chancerypb.NewControlPlaneClient(r.dial(id)).Enroll(r.t.Context(),
		&chancerypb.EnrollRequest{Csr: csr, PassportKeys: passportKeys})
}

func TestEnroll(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	csr, key := newCSR(t)
	resp, err := chancerypb.NewControlPlaneClient(r.dial(orders)).Enroll(t.Context(), &chancerypb.EnrollRequest{Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	svid := r.check(resp, orders, key)
	if left := time.Until(svid.Expires()); left < 23*time.Hour || left > 24*time.Hour {
		t.Errorf("certificate ends in %v", left)
	}
	before, _ := controlplane.Authority(r.server).Find(r.svid(orders).Serial())
	after, _ := controlplane.Authority(r.server).Find(svid.Serial())
	if after.Parent != before.Serial || after.Lineage != before.Lineage || after.Lineage == "" {
		t.Errorf("lineage %q of %q after %q of %q", after.Lineage, after.Parent, before.Lineage, before.Serial)
	}
	if err := report(t.Context(), r.dialWith(svid)); err != nil {
		t.Errorf("the new certificate: %v", err)
	}

	r.stop()
	r.start()
	again, err := r.enroll(orders)
	if err != nil {
		t.Fatal(err)
	}
	if string(again.GetTrust().GetRoots()[0]) != string(resp.GetTrust().GetRoots()[0]) {
		t.Error("a restart made another root")
	}
}

// check fails unless an agent can use what it was given: a certificate of this
// workload and key, and nothing else, that the Trust beside it verifies.
func (r *rig) check(resp *chancerypb.EnrollResponse, id identity.ID, key crypto.Signer) *identity.SVID {
	r.t.Helper()
	svid, err := identity.ParseSVID(id, key, resp.GetChain())
	if err != nil {
		r.t.Fatal(err)
	}
	trust, err := identity.ParseTrust(resp.GetTrust())
	if err != nil {
		r.t.Fatal(err)
	}
	if got, err := trust.Verify(svid.Chain, time.Now()); err != nil || got != id {
		r.t.Errorf("verified as %v: %v", got, err)
	}
	leaf := svid.Chain[0]
	if len(leaf.URIs) != 1 || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 || leaf.IsCA {
		r.t.Errorf("certificate of %v %v %v %v, an authority: %v", leaf.URIs, leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses, leaf.IsCA)
	}
	if want := id.SPIFFE("shop.example"); resp.GetSpiffeId() != want || svid.SPIFFEID() != want {
		r.t.Errorf("certificate of %s, answer of %s", svid.SPIFFEID(), resp.GetSpiffeId())
	}
	return svid
}

func TestEnrollRefuses(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	jwk, _ := newPassportKey(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	es256, err := passport.EncodeKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	withPrivate := strings.Replace(string(jwk), "{", `{"d":"`+base64.RawURLEncoding.EncodeToString(make([]byte, 32))+`",`, 1)
	csr, _ := newCSR(t)
	tests := map[string]struct {
		id       identity.ID
		csr, key []byte
		want     codes.Code
	}{
		"no request":                    {orders, nil, nil, codes.InvalidArgument},
		"a broken request":              {orders, csr[:len(csr)-1], nil, codes.InvalidArgument},
		"a service that would mint":     {orders, csr, jwk, codes.PermissionDenied},
		"a key with its private half":   {gateway, csr, []byte(withPrivate), codes.InvalidArgument},
		"a key of another kind":         {gateway, csr, es256, codes.InvalidArgument},
		"a symmetric key":               {gateway, csr, []byte(`{"kty":"oct","k":"AAAA"}`), codes.InvalidArgument},
		"a key under another name":      {gateway, csr, []byte(strings.Replace(string(jwk), `"kid":"`, `"kid":"x`, 1)), codes.InvalidArgument},
		"a key that belongs to another": {gateway, csr, []byte(strings.Replace(string(jwk), "{", `{"owner":"spiffe://shop.example/gateway/other",`, 1)), codes.InvalidArgument},
		"garbage":                       {gateway, csr, []byte("garbage"), codes.InvalidArgument},
	}
	for name, tt := range tests {
		req := &chancerypb.EnrollRequest{Csr: tt.csr}
		if tt.key != nil {
			req.PassportKeys = [][]byte{tt.key}
		}
		_, err := chancerypb.NewControlPlaneClient(r.dial(tt.id)).Enroll(t.Context(), req)
		if status.Code(err) != tt.want {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if r.metric("chancery_certificates_signed_total") != 0 {
		t.Error("something was signed")
	}
}

func TestEnrollmentsAreLimited(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	client := chancerypb.NewControlPlaneClient(r.dial(orders))
	for range 1000 {
		if _, err := client.Enroll(t.Context(), &chancerypb.EnrollRequest{}); status.Code(err) == codes.ResourceExhausted {
			if _, err := r.enroll(inventory); err != nil {
				t.Errorf("another workload: %v", err)
			}
			return
		}
	}
	t.Error("a thousand enrollments in a row")
}

// A thief who renews what the agent renewed as well is heard of; an agent that
// repeats what got no answer is not taken for one.
func TestCertificateRenewedWithTwoKeys(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	client := chancerypb.NewControlPlaneClient(r.dial(orders))
	csr, _ := newCSR(t)
	for range 3 {
		if _, err := client.Enroll(t.Context(), &chancerypb.EnrollRequest{Csr: csr}); err != nil {
			t.Fatal(err)
		}
	}
	const text = "certificate renewed with two keys"
	if r.log.has(text) || r.metric("chancery_certificates_forked_total") != 0 {
		t.Error("a repetition is taken for a theft")
	}
	if _, err := r.enroll(orders); err != nil {
		t.Fatal(err)
	}
	record, err := os.ReadFile(r.state + "/audit.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if !r.log.has(text) || !strings.Contains(string(record), text) || r.metric("chancery_certificates_forked_total") != 1 {
		t.Errorf("log, audit or metric do not tell: %s", record)
	}
}

// A stolen key gets a handful of certificates, and does not make the agent join
// anew for want of another.
func TestRenewalsOfOneLineageAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	for n := range 12 {
		_, err := r.enroll(orders)
		if want := map[bool]codes.Code{true: codes.OK, false: codes.ResourceExhausted}[n < 8]; status.Code(err) != want {
			t.Errorf("renewal %d: %v, want %v", n, err, want)
		}
	}
	if n := len(controlplane.Authority(r.server).Live()); n != 2 { // the control plane's, and this
		t.Errorf("%d are live", n)
	}
	if _, err := r.enroll(inventory); err != nil {
		t.Errorf("another workload: %v", err)
	}
}

// Rejections that are too many are dropped, and heard when they are told again;
// what else the report says is taken.
func TestRejectionsAreLimited(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	client := chancerypb.NewControlPlaneClient(r.dial(orders))
	report := func(text string) error {
		_, err := client.Report(t.Context(), &chancerypb.ReportRequest{Instance: "1", HeldRevision: text, Types: []*chancerypb.TypeStatus{
			{TypeUrl: resource.RouteType, State: chancerypb.TypeStatus_NACKED, Error: text},
		}})
		return err
	}
	for i := range 100 {
		text := strconv.Itoa(i)
		if status.Code(report(text)) != codes.ResourceExhausted {
			continue
		}
		if p := r.proxies()[0]; p.Held != text || p.Types[0].Error != text {
			t.Errorf("the rest of the report was not taken: %+v", p)
		}
		if _, err := client.Report(t.Context(), &chancerypb.ReportRequest{Instance: "1"}); err != nil {
			t.Errorf("a report without a rejection: %v", err)
		}
		heard := r.log.count("resources rejected")
		r.until("it is heard", func() bool { return report(text) == nil })
		if got := r.log.count("resources rejected"); got != heard+1 {
			t.Errorf("told %d times", got-heard)
		}
		return
	}
	t.Error("a hundred rejections in a row")
}

func TestReportsAreLimited(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	conn := r.dial(orders)
	for range 1000 {
		if err := report(t.Context(), conn); status.Code(err) == codes.ResourceExhausted {
			if err := report(t.Context(), r.dial(orders)); err != nil {
				t.Errorf("another connection: %v", err)
			}
			return
		}
	}
	t.Error("a thousand reports in a row")
}

// passportKeyIDs subscribes as a service and returns the ids of the keys that
// the gateway may sign with.
func (r *rig) passportKeyIDs() []string {
	r.t.Helper()
	c := r.open(orders)
	defer c.Close()
	c.Subscribe(passportKeysType, "public")
	var keys chancerypb.PassportKeys
	decode(r.t, c.NextACK(), &keys)
	if keys.GetGateway() != "public" || keys.GetSpiffeId() != "spiffe://shop.example/gateway/public" {
		r.t.Errorf("keys of %s, %s", keys.GetGateway(), keys.GetSpiffeId())
	}
	if _, err := passport.ParseKeySet(keys.GetJwks(), keys.GetSpiffeId()); err != nil {
		r.t.Errorf("verifiers cannot read the keys: %v", err)
	}
	var set struct {
		Keys []struct{ KID string }
	}
	if err := json.Unmarshal(keys.GetJwks(), &set); err != nil {
		r.t.Fatal(err)
	}
	var ids []string
	for _, k := range set.Keys {
		ids = append(ids, k.KID)
	}
	return ids
}

func TestPassportKeysAreEndorsed(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	if ids := r.passportKeyIDs(); ids != nil {
		t.Errorf("keys %v before there were any", ids)
	}
	first, firstID := newPassportKey(t)
	second, secondID := newPassportKey(t)
	for _, jwk := range [][]byte{first, second, first} { // the first is renewed
		if _, err := r.enroll(gateway, jwk); err != nil {
			t.Fatal(err)
		}
	}
	want := min(firstID, secondID) + " " + max(firstID, secondID)
	if got := strings.Join(r.passportKeyIDs(), " "); got != want {
		t.Errorf("keys %s, want %s", got, want)
	}
	r.stop()
	r.start()
	if got := strings.Join(r.passportKeyIDs(), " "); got != want {
		t.Errorf("after a restart: keys %s, want %s", got, want)
	}
	if info, err := os.Stat(r.state + "/passport-keys.json"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestPassportKeysExpireAndAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys, err := controlplane.OpenPassportKeys(dir + "/keys.json")
		if err != nil {
			t.Fatal(err)
		}
		keys.Use("shop.example", []string{"public"})
		endorse := func(jwk []byte, ok bool) {
			t.Helper()
			if err := keys.Endorse("public", jwk); (err == nil) != ok {
				t.Errorf("Endorse: %v", err)
			}
		}
		count := func(want int) {
			t.Helper()
			keys.Expire()
			if got := keys.Count("public"); got != want {
				t.Errorf("%d keys, want %d", got, want)
			}
		}
		first, _ := newPassportKey(t)
		newcomer, _ := newPassportKey(t)
		endorse(first, true)
		for range controlplane.MaxPassportKeys - 1 {
			jwk, _ := newPassportKey(t)
			endorse(jwk, true)
		}
		endorse(newcomer, false) // all are in use
		time.Sleep(13 * time.Hour)
		endorse(first, true) // as any instance does that is there
		endorse(newcomer, false)
		time.Sleep(6 * time.Hour)
		endorse(newcomer, true) // in place of one that was not renewed
		count(controlplane.MaxPassportKeys)
		time.Sleep(6 * time.Hour)
		count(2) // none but these was renewed
		time.Sleep(24 * time.Hour)
		count(0)
	})
}

func TestTooManyPassportKeysAreRefusedLoudly(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	first, firstID := newPassportKey(t)
	if _, err := r.enroll(gateway, first); err != nil {
		t.Fatal(err)
	}
	for range controlplane.MaxPassportKeys - 1 {
		jwk, _ := newPassportKey(t)
		if err := controlplane.Passports(r.server).Endorse("public", jwk); err != nil {
			t.Fatal(err)
		}
	}
	fresh, _ := newPassportKey(t)
	signed := controlplane.Authority(r.server).Live()
	if _, err := r.enroll(gateway, fresh); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	if diff := cmp.Diff(signed, controlplane.Authority(r.server).Live()); diff != "" {
		t.Errorf("a certificate was signed for nothing:\n%s", diff)
	}
	if !r.log.has("passport key refused") || r.metric("chancery_passport_keys_refused_total") != 1 {
		t.Error("nobody hears of it")
	}
	if ids := r.passportKeyIDs(); len(ids) != controlplane.MaxPassportKeys || !slices.Contains(ids, firstID) {
		t.Errorf("%d keys, want %d, and %s among them", len(ids), controlplane.MaxPassportKeys, firstID)
	}
	if _, err := r.enroll(gateway, first); err != nil {
		t.Errorf("a renewal: %v", err)
	}
}

func TestSpoiltPassportKeysStopTheStart(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/keys.json"
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := controlplane.OpenPassportKeys(path); err == nil {
		t.Error("opened")
	}
}
