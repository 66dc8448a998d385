package sidecar_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chancery-mesh/chancery/sidecar"
)

func TestSecretsAreServedByName(t *testing.T) {
	_, a, e := startMesh(t, "orders")
	eventually(t, "enrolled", a.Ready)
	stream, err := secretv3.NewSecretDiscoveryServiceClient(e.conn).DeltaSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: resource.SecretType, ResourceNamesSubscribe: []string{"svid", "../other"},
	}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(is(len(resp.GetResources()), 1), is(resp.GetRemovedResources(), []string{"../other"})); err != nil {
		t.Fatal(err)
	}
	var secret tlsv3.Secret
	if err := resp.GetResources()[0].GetResource().UnmarshalTo(&secret); err != nil {
		t.Fatal(err)
	}
	if len(secret.GetTlsCertificate().GetPrivateKey().GetInlineBytes()) == 0 {
		t.Error("no key in the secret")
	}
}

func TestTypesThatEnvoyHasNoBusinessWith(t *testing.T) {
	_, _, e := startMesh(t, "orders")
	for _, typeURL := range []string{policyType, resource.SecretType, ""} {
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(e.conn).DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("type %q: %v", typeURL, err)
		}
	}
}

func TestStrangersAreHungUpOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDir(t), "envoy.sock")
	own := uint32(os.Geteuid())
	for _, test := range []struct {
		name    string
		uid     uint32
		welcome bool
	}{
		{"own user", own, true},
		{"another user", own + 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := sidecar.ListenForEnvoy(path, test.uid)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("socket: %v, %v", info, err)
			}
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, _ = c.Write([]byte("hello"))
					_ = c.Close()
				}
			}()
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			greeting, _ := io.ReadAll(c)
			if got := string(greeting) == "hello"; got != test.welcome {
				t.Errorf("welcome: %v, want %v", got, test.welcome)
			}
		})
	}
}
