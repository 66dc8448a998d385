package sidecar_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/attest"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/consultest"
	"github.com/chancery-mesh/chancery/sidecar"
)

// ChallengeConsul implements the Attestation service.
func (cp *controlPlane) ChallengeConsul(_ context.Context, req *chancerypb.ChallengeConsulRequest) (*chancerypb.ChallengeConsulResponse, error) {
	key, err := identity.PublicKey(req.GetCsr())
	if err != nil {
		return nil, err
	}
	nonce, lifetime, err := cp.consul.Challenge(req.GetService(), req.GetServiceId(), key)
	return &chancerypb.ChallengeConsulResponse{Nonce: nonce, MetaKey: attest.MetaKey, Lifetime: durationpb.New(lifetime)}, err
}

// JoinWithConsul implements the Attestation service.
func (cp *controlPlane) JoinWithConsul(ctx context.Context, req *chancerypb.JoinWithConsulRequest) (*chancerypb.EnrollResponse, error) {
	key, err := identity.PublicKey(req.GetEnroll().GetCsr())
	if err != nil {
		return nil, err
	}
	p := attest.Proof{Service: req.GetService(), ServiceID: req.GetServiceId(), Nonce: req.GetNonce()}
	if err := cp.consul.Verify(ctx, p, key, "127.0.0.1"); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return cp.sign(ca.Request{ID: identity.ID{Role: identity.RoleService, Name: req.GetService()}, Key: key})
}

// An agent joins by what its own ACL token may write, and comes in as nothing
// else; its registration is afterwards what it was.
func TestAgentJoinsByConsul(t *testing.T) {
	t.Parallel()
	server := consultest.StartWithACLs(t)
	log, err := audit.Open(filepath.Join(t.TempDir(), "audit.jsonl"), slog.New(slog.DiscardHandler))
	check(t, err)
	t.Cleanup(func() { check(t, log.Close()) })
	cp := newControlPlane(t, orders)
	cp.consul, err = attest.NewConsul(attest.ConsulConfig{
		API: server.Token(t, `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`), Audit: log,
	})
	check(t, err)
	cp.start()
	client, err := api.NewClient(server.ServiceToken(t, "orders"))
	check(t, err)
	check(t, client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "orders", ID: "orders-1", Port: 9000, Meta: map[string]string{"version": "1"},
	}))
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	writeToken(string(encodeRoots(cp.authority)), 0o644)(t, bundle, "")

	a := newAgent(t, cp)
	a.config.Identity = orders
	a.config.Join = sidecar.Join{Consul: &sidecar.ConsulProof{Client: client, ServiceID: "orders-1"}, TrustBundle: bundle}
	a.start()
	eventually(t, "joined", func() error {
		return errors.Join(joined(a)(), is(a.Status().ControlPlaneConnected, true))
	})
	service, _, err := client.Agent().Service("orders-1", nil)
	check(t, err)
	if err := is(service.Meta, map[string]string{"version": "1"}); err != nil {
		t.Errorf("the registration afterwards: %v", err)
	}

	impostor := newAgent(t, cp)
	impostor.config.Identity = identity.ID{Role: identity.RoleService, Name: "payments"}
	impostor.config.Join = a.config.Join
	impostor.start()
	eventually(t, "another name is refused", hasProblem(impostor, `is of service "orders", not "payments"`))
}
