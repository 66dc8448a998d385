package envoy_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/mesh"
)

func TestSecretNames(t *testing.T) {
	t.Parallel()
	m := shop(route("all", "/**"))
	if got := envoy.SecretNames(envoy.Gateway(m, m.Gateways[0])); len(got) != 0 {
		t.Errorf("a gateway in the clear asks for %v", got)
	}
	m.Gateways[0].TLS = &mesh.GatewayTLS{
		Certificates: []string{"shop", "old"},
		Clients:      &mesh.ClientCertificates{Trust: "partners"},
	}
	want := []string{envoy.CertificateSecret("old"), envoy.CertificateSecret("shop"), envoy.TrustSecret("partners")}
	if got := envoy.SecretNames(envoy.Gateway(m, m.Gateways[0])); !slices.Equal(got, want) {
		t.Errorf("a gateway with TLS asks for %v, want %v", got, want)
	}
	strict := &mesh.Service{Name: "orders", MTLS: mesh.MTLSStrict, Plaintext: &mesh.Plaintext{From: []netip.Prefix{}}}
	want = []string{envoy.SecretBundle, envoy.SecretSVID}
	if got := envoy.SecretNames(envoy.Sidecar(m, strict)); !slices.Equal(got, want) {
		t.Errorf("a sidecar asks for %v, want %v", got, want)
	}
}
