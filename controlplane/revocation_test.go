package controlplane_test

import (
	"crypto"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

// stream opens a stream as a workload, which the book of proxies has when it
// returns.
func (r *rig) stream(id string, c *xdstest.Client) *xdstest.Client {
	r.t.Helper()
	c.Subscribe(revisionType, "*")
	c.NextACK()
	r.until(id+" is in the book", func() bool {
		for _, p := range r.proxies() {
			if p.Name == id && p.Connected {
				return true
			}
		}
		return false
	})
	return c
}

// takeTrust reports as an agent that takes each trust as soon as it is there,
// until the test ends.
func (r *rig) takeTrust() {
	conn := r.dial(gateway)
	taken := make(chan struct{})
	ctx := r.t.Context()
	go func() {
		defer close(taken)
		for ctx.Err() == nil {
			authority := controlplane.Authority(r.server)
			changed := authority.Changed()
			report := &chancerypb.ReportRequest{Instance: "1", TrustSequence: authority.Trust().GetSequence()}
			_, _ = chancerypb.NewControlPlaneClient(conn).Report(ctx, report)
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}()
	r.t.Cleanup(func() { <-taken })
}

func TestRevokeAWorkload(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.stream("gateway/public", r.open(gateway))
	r.takeTrust()
	conn := r.dial(orders)
	stream := r.stream("service/orders", xdstest.Open(t, conn))
	svid := r.svid(orders)
	r.report(orders, &chancerypb.ReportRequest{SvidSerial: svid.Serial(), SvidAuthority: svid.Authority()})

	controlplane.AwaitProxies(r.server, time.Minute) // no client waits as long
	got, err := r.admin.Revoke(t.Context(), controlplane.Revocation{Service: "orders", Reason: "stolen"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Certificates) != 1 || got.Certificates[0].Serial != svid.Serial() || got.Certificates[0].Name != "service/orders" {
		t.Errorf("revoked: %+v, want %s", got.Certificates, svid.Serial())
	}
	if got.Proxies != 1 || got.Acknowledged != 1 || len(got.Waiting) != 0 {
		t.Errorf("proxies: %+v, want the gateway alone, which has taken it", got)
	}

	stream.Ended()
	_, err = chancerypb.NewControlPlaneClient(r.dialWith(svid)).Report(t.Context(), &chancerypb.ReportRequest{}, grpc.WaitForReady(false))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("with the revoked certificate: %v", err)
	}
	found := false
	for _, p := range r.proxies() {
		if p.Name == "service/orders" {
			found = !p.Connected && !p.Certificate.Revoked.IsZero() && strings.Contains(strings.Join(p.Problems, "\n"), "was revoked")
		}
	}
	if !found {
		t.Errorf("proxies does not show it: %+v", r.proxies())
	}
	identities, err := r.admin.Identities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range identities {
		if i.Name == "service/orders" {
			t.Errorf("it still has an identity: %+v", i)
		}
	}
	if !r.log.has("certificates revoked") || r.metric("chancery_certificates_revoked_total") != 1 || r.metric("chancery_certificates_revoked") != 1 {
		t.Error("log and metrics do not show it")
	}
}

func TestRevokeTellsWhoHasNotTakenIt(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.stream("gateway/public", r.open(gateway))
	got, err := r.admin.Revoke(t.Context(), controlplane.Revocation{Serial: colons(r.svid(orders).Serial())})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Certificates) != 1 || got.Proxies != 1 || got.Acknowledged != 0 {
		t.Errorf("revoked: %+v", got)
	}
	if len(got.Waiting) != 1 || got.Waiting[0].Name != "gateway/public" || got.Waiting[0].Since.IsZero() {
		t.Errorf("waiting: %+v", got.Waiting)
	}
}

// colons writes a serial number as browsers and OpenSSL do.
func colons(serial string) string {
	if len(serial)%2 == 1 {
		serial = "0" + serial
	}
	var pairs []string
	for ; serial != ""; serial = serial[2:] {
		pairs = append(pairs, serial[:2])
	}
	return strings.ToUpper(strings.Join(pairs, ":"))
}

func TestRevokeOfWhatThereIsNot(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	r.dial(orders)
	for name, test := range map[string]struct {
		revocation controlplane.Revocation
		want       int
	}{
		"a service that nobody knows": {controlplane.Revocation{Service: "order"}, http.StatusNotFound},
		"a gateway of that name":      {controlplane.Revocation{Gateway: "orders"}, http.StatusNotFound},
		"no number":                   {controlplane.Revocation{Serial: "zz"}, http.StatusBadRequest},
		"an unknown serial number":    {controlplane.Revocation{Serial: "abc123"}, http.StatusNotFound},
		"the beginning of a serial":   {controlplane.Revocation{Serial: r.svid(orders).Serial()[:20]}, http.StatusNotFound},
		"nothing":                     {controlplane.Revocation{Reason: "because"}, http.StatusBadRequest},
		"two things":                  {controlplane.Revocation{Service: "orders", Gateway: "public"}, http.StatusBadRequest},
	} {
		_, err := r.admin.Revoke(t.Context(), test.revocation)
		if answer, ok := errors.AsType[*controlplane.AnswerError](err); !ok || answer.Status != test.want {
			t.Errorf("%s: %v, want status %d", name, err, test.want)
		}
	}
	got, err := r.admin.Revoke(t.Context(), controlplane.Revocation{Service: "inventory"})
	if err != nil || len(got.Certificates) != 0 {
		t.Errorf("a service without certificates: %+v, %v", got, err)
	}
	if n := len(controlplane.Authority(r.server).Trust().GetRevoked()); n != 0 {
		t.Errorf("%d certificates are revoked", n)
	}
}

// The tokens that a revoked agent came with are gone, another agent's stay; what
// nobody has used is listed, whatever names the revoked.
func TestRevocationEndsTokens(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	type agent struct {
		token string
		csr   []byte
		svid  *identity.SVID
	}
	newAgent := func() agent {
		a := agent{token: r.token(orders)}
		var key crypto.Signer
		a.csr, key = newCSR(t)
		resp, err := join(t, r.stranger(a.token), a.token, "service/orders", a.csr)
		if err != nil {
			t.Fatal(err)
		}
		a.svid = r.check(resp, orders, key)
		return a
	}
	again := func(a agent) codes.Code {
		_, err := join(t, r.stranger(a.token), a.token, "service/orders", a.csr)
		return status.Code(err)
	}
	first, second := newAgent(), newAgent()
	unused := strings.Split(r.token(orders), "_")[1]
	got, err := r.admin.Revoke(t.Context(), controlplane.Revocation{Serial: first.svid.Serial()})
	if err != nil || len(got.Tokens) != 1 || got.Tokens[0] != unused {
		t.Errorf("tokens left are %v, want %s; %v", got.Tokens, unused, err)
	}
	if code := again(first); code != codes.Unauthenticated {
		t.Errorf("with the token of a revoked agent: %v", code)
	}
	if code := again(second); code != codes.OK {
		t.Errorf("with the token of another: %v", code)
	}
	got, err = r.admin.Revoke(t.Context(), controlplane.Revocation{Service: "orders"})
	if err != nil || len(got.Tokens) != 1 || got.Tokens[0] != unused {
		t.Errorf("tokens left are %v, want %s; %v", got.Tokens, unused, err)
	}
	if code := again(second); code != codes.Unauthenticated {
		t.Errorf("with the token of a revoked service: %v", code)
	}
}

// A full disk does not keep a thief in, and the operator hears of it.
func TestRevocationWithoutADisk(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	stream := r.stream("service/orders", r.open(orders))
	dir, away := r.state+"/ca", r.state+"/ca-away"
	if err := os.Rename(dir, away); err != nil { // the ledger is open and stays so; Trust cannot be written
		t.Fatal(err)
	}
	got, err := r.admin.Revoke(t.Context(), controlplane.Revocation{Serial: r.svid(orders).Serial()})
	if err != nil || len(got.Certificates) != 1 || !strings.Contains(got.Unsaved, "not on disk") {
		t.Errorf("revoked: %+v, %v", got, err)
	}
	stream.Ended()
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	again, err := r.admin.Revoke(t.Context(), controlplane.Revocation{Serial: r.svid(orders).Serial()})
	if err != nil || again.Unsaved != "" {
		t.Errorf("with the disk back: %+v, %v", again, err)
	}
}
