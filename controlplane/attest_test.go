package controlplane_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/attest"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/consultest"
	"github.com/chancery-mesh/chancery/internal/xdstest"
)

// token makes a join token for a workload.
func (r *rig) token(id identity.ID) string {
	r.t.Helper()
	r.dial(id)
	token, err := r.admin.CreateToken(r.t.Context(), id, time.Minute)
	if err != nil {
		r.t.Fatal(err)
	}
	return token.Secret
}

// stranger connects as an agent does that has nothing but a token.
func (r *rig) stranger(token string) *grpc.ClientConn {
	r.t.Helper()
	pins, err := attest.PinsOfToken(token)
	if err != nil {
		r.t.Fatal(err)
	}
	return xdstest.DialWith(r.t, r.server.Addr().String(), identity.JoinCredentials(pins))
}

// join asks for a first certificate.
func join(t *testing.T, conn *grpc.ClientConn, token, workload string, csr []byte) (*chancerypb.EnrollResponse, error) {
	t.Helper()
	return chancerypb.NewAttestationClient(conn).JoinWithToken(t.Context(), &chancerypb.JoinWithTokenRequest{
		Token: token, Workload: workload, Enroll: &chancerypb.EnrollRequest{Csr: csr},
	})
}

func TestJoinWithToken(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	token := r.token(orders)
	conn := r.stranger(token)
	csr, key := newCSR(t)
	resp, err := join(t, conn, token, "service/orders", csr)
	if err != nil {
		t.Fatal(err)
	}
	svid := r.check(resp, orders, key)
	if err := report(t.Context(), r.dialWith(svid)); err != nil {
		t.Errorf("with the certificate: %v", err)
	}
	again, err := join(t, conn, token, "service/orders", csr)
	if err != nil {
		t.Fatalf("the same agent again: %v", err)
	}
	if same := r.check(again, orders, key); same.Serial() != svid.Serial() {
		t.Errorf("asked again it has another certificate, %s after %s", same.Serial(), svid.Serial())
	}
	other, _ := newCSR(t)
	if _, err := join(t, conn, token, "service/orders", other); status.Code(err) != codes.Unauthenticated {
		t.Errorf("another agent: %v", err)
	}
	log, err := os.ReadFile(r.state + "/audit.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(token, "_")[2]
	for _, text := range []string{string(log), r.log.String()} {
		if strings.Contains(text, secret) {
			t.Error("the secret is written down")
		}
	}
	for _, event := range []string{"join token created", "join token used", "certificate issued at attestation", `"refused"`} {
		if !strings.Contains(string(log), event) {
			t.Errorf("audit log has no %s:\n%s", event, log)
		}
	}
}

// A proof gets the identity that it is of, and no other; and only one that a
// document speaks of.
func TestJoinGivesWhatWasProved(t *testing.T) {
	t.Parallel()
	docs := shop()
	docs["extra"] = "kind: Service\nname: extra\n"
	r := start(t, docs)
	extra := identity.ID{Role: identity.RoleService, Name: "extra"}
	gone := r.token(extra)
	r.remove("extra")
	token := r.token(orders)
	conn := r.stranger(token)
	r.until("the document is gone", func() bool { return r.view(extra).Name == "" })
	csr, _ := newCSR(t)
	for name, tt := range map[string]struct {
		token, workload string
		want            codes.Code
	}{
		"another service":       {token, "service/inventory", codes.Unauthenticated},
		"a gateway of the name": {token, "gateway/orders", codes.Unauthenticated},
		"the control plane":     {token, "control-plane", codes.InvalidArgument},
		"upper case":            {token, "service/Orders", codes.InvalidArgument},
		"a longer name":         {token, "service/orders/x", codes.InvalidArgument},
		"nobody":                {token, "", codes.InvalidArgument},
		"without a document":    {gone, "service/extra", codes.PermissionDenied},
	} {
		if _, err := join(t, conn, tt.token, tt.workload, csr); status.Code(err) != tt.want {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if n := r.metric("chancery_certificates_signed_total"); n != 0 {
		t.Errorf("%v certificates signed", n)
	}
}

// Whatever is sent as a token, it is an error like any other.
func TestSpoiltTokens(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	token := r.token(orders)
	parts := strings.Split(token, "_")
	with := func(i int, part string) string {
		changed := append([]string{}, parts...)
		changed[i] = part
		return strings.Join(changed, "_")
	}
	flipped := strings.Map(func(c rune) rune { return c ^ 1 }, parts[2][:1]) + parts[2][1:]
	var said string
	for name, text := range map[string]string{
		"empty": "", "no parts": "chj", "of separators": "____", "with a field less": strings.Join(parts[:3], "_"),
		"with a field more": token + "_x", "of another kind": with(0, "xoxb"), "with no id": with(1, ""),
		"with another id": with(1, "0123456789abcdef"), "with no secret": with(2, ""), "with half a secret": with(2, parts[2][:32]),
		"with another secret": with(2, flipped), "with no pin": with(3, ""), "of a megabyte": with(2, strings.Repeat("0", 1<<20)),
	} {
		csr, _ := newCSR(t)
		conn := r.stranger(token)
		_, err := join(t, conn, text, "service/orders", csr)
		if status.Code(err) == codes.ResourceExhausted { // too many attempts from here
			time.Sleep(time.Second)
			_, err = join(t, conn, text, "service/orders", csr)
		}
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("a token %s: %v", name, err)
		}
		if message := status.Convert(err).Message(); said != "" && message != said {
			t.Errorf("a token %s is told %q, others %q", name, message, said)
		} else {
			said = message
		}
	}
}

func TestAttemptsAreLimited(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	token := r.token(orders)
	csr, _ := newCSR(t)
	limited := 0
	for range 30 {
		_, err := join(t, r.stranger(token), "guess", "service/orders", csr)
		if status.Code(err) == codes.ResourceExhausted {
			limited++
		}
	}
	if limited < 10 {
		t.Errorf("%d of 30 attempts were too many", limited)
	}
	if _, err := r.enroll(inventory); err != nil {
		t.Errorf("a renewal from the same address: %v", err)
	}
}

func TestConsulIsNotAttestedByUnlessConfigured(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	client := chancerypb.NewAttestationClient(r.stranger(r.token(orders)))
	csr, _ := newCSR(t)
	_, challenge := client.ChallengeConsul(t.Context(), &chancerypb.ChallengeConsulRequest{Service: "orders", ServiceId: "1", Csr: csr})
	_, proof := client.JoinWithConsul(t.Context(), &chancerypb.JoinWithConsulRequest{
		Service: "orders", ServiceId: "1", Nonce: "x", Enroll: &chancerypb.EnrollRequest{Csr: csr},
	})
	for _, err := range []error{challenge, proof} {
		if status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
	}
}

// An agent proves by the registration of its service, and gets what it proved.
// Another's registration, or another key, is no proof.
func TestJoinWithConsul(t *testing.T) {
	t.Parallel()
	server := consultest.StartWithACLs(t)
	r := start(t, shop(), func(c *controlplane.Config) {
		c.Consul = &attest.ConsulConfig{API: server.Token(t, `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`)}
	})
	mine, err := attest.NewConsulClient(server.ServiceToken(t, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "orders", ID: "orders-1", Port: 9000}); err != nil {
		t.Fatal(err)
	}
	client := chancerypb.NewAttestationClient(r.stranger(r.token(orders)))
	csr, key := newCSR(t)
	challenge, err := client.ChallengeConsul(t.Context(), &chancerypb.ChallengeConsulRequest{Service: "orders", ServiceId: "orders-1", Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	cleanup, err := attest.Prove(t.Context(), mine, attest.Proof{Service: "orders", ServiceID: "orders-1", Nonce: challenge.GetNonce()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cleanup(context.Background()) })
	join := func(service string, csr []byte) (*chancerypb.EnrollResponse, error) {
		return client.JoinWithConsul(t.Context(), &chancerypb.JoinWithConsulRequest{
			Service: service, ServiceId: "orders-1", Nonce: challenge.GetNonce(), Enroll: &chancerypb.EnrollRequest{Csr: csr},
		})
	}
	other, _ := newCSR(t)
	for name, attempt := range map[string]func() (*chancerypb.EnrollResponse, error){
		"another service": func() (*chancerypb.EnrollResponse, error) { return join("inventory", csr) },
		"another key":     func() (*chancerypb.EnrollResponse, error) { return join("orders", other) },
	} {
		if _, err := attempt(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	resp, err := join("orders", csr)
	if err != nil {
		t.Fatal(err)
	}
	r.check(resp, orders, key)
	if _, err := join("orders", csr); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the nonce once more: %v", err)
	}
}

// Only the key of a request counts, and that must be good and the sender's.
func TestCertificateRequests(t *testing.T) {
	t.Parallel()
	r := start(t, shop())
	token := r.token(orders)
	joining := r.stranger(token)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	greedy := request(t, key, &x509.CertificateRequest{
		Subject:        pkix.Name{CommonName: "spiffe://shop.example/service/inventory"},
		URIs:           []*url.URL{{Scheme: "spiffe", Host: "shop.example", Path: "/service/inventory"}, {Scheme: "spiffe", Host: "shop.example", Path: "/control-plane"}},
		DNSNames:       []string{"inventory", "*"},
		IPAddresses:    []net.IP{net.IPv4(127, 0, 0, 1)},
		EmailAddresses: []string{"root@shop.example"},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}, // CA: true
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 1, 6}},          // may sign certificates
		},
	})
	resp, err := join(t, joining, token, "service/orders", greedy)
	if err != nil {
		t.Fatal(err)
	}
	svid := r.check(resp, orders, key)
	renewing := chancerypb.NewControlPlaneClient(r.dialWith(svid))
	renewed, err := renewing.Enroll(t.Context(), &chancerypb.EnrollRequest{Csr: greedy})
	if err != nil {
		t.Fatal(err)
	}
	r.check(renewed, orders, key)

	for name, csr := range badRequests(t, svid) {
		_, err := join(t, joining, token, "service/orders", csr)
		if status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("join with %s: %v", name, err)
		}
		if _, err := renewing.Enroll(t.Context(), &chancerypb.EnrollRequest{Csr: csr}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("renewal with %s: %v", name, err)
		}
	}
}

func badRequests(t *testing.T, victim *identity.SVID) map[string][]byte {
	t.Helper()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good, own := newCSR(t)
	spoilt := append([]byte{}, good...)
	spoilt[len(spoilt)-1] ^= 1
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"a weak key":           request(t, weak, &x509.CertificateRequest{}),
		"a weak curve":         request(t, p224, &x509.CertificateRequest{}),
		"a wrong signature":    spoilt,
		"another's public key": borrow(t, good, own, victim.Key.Public()),
		"nothing":              nil,
		"something after it":   append(append([]byte{}, good...), 0),
		"a huge request":       request(t, own, &x509.CertificateRequest{DNSNames: []string{strings.Repeat("a", 1<<20)}}),
		"a certificate":        victim.Chain[0].Raw,
	}
}

// borrow puts another's public key into a request.
func borrow(t *testing.T, csr []byte, own *ecdsa.PrivateKey, other crypto.PublicKey) []byte {
	t.Helper()
	points := make([][]byte, 2)
	for i, key := range []crypto.PublicKey{&own.PublicKey, other} {
		spki, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		points[i] = spki[len(spki)-64:]
	}
	return bytes.Replace(csr, points[0], points[1], 1)
}

func request(t *testing.T, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}
