package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/identity/attest"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// ConsulProof proves a service's identity by what Consul lets the agent write.
type ConsulProof struct {
	// Client asks the Consul agent of this host, with a token that may write
	// the service. That token never leaves the host.
	Client *api.Client
	// ServiceID is the ID of this instance's registration.
	ServiceID string
}

// consulProver proves an identity by writing a nonce of the control plane into
// the service's registration.
type consulProver struct {
	*ConsulProof
	service string
	log     *slog.Logger
}

const cleanupTimeout = 5 * time.Second

var _ prover = (*consulProver)(nil)

// prove implements prover.
func (p *consulProver) prove(ctx context.Context, client chancerypb.AttestationClient, req *chancerypb.EnrollRequest) (*chancerypb.EnrollResponse, error) {
	challenge, err := client.ChallengeConsul(ctx, &chancerypb.ChallengeConsulRequest{
		Service: p.service, ServiceId: p.ServiceID, Csr: req.GetCsr(),
	}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("join by consul: %w", err)
	}
	cleanup, err := attest.Prove(ctx, p.Client, attest.Proof{Service: p.service, ServiceID: p.ServiceID, Nonce: challenge.GetNonce()})
	if err != nil {
		return nil, fmt.Errorf("join by consul: %w", err)
	}
	defer p.clean(ctx, cleanup)
	resp, err := client.JoinWithConsul(ctx, &chancerypb.JoinWithConsulRequest{
		Service: p.service, ServiceId: p.ServiceID, Nonce: challenge.GetNonce(), Enroll: req,
	})
	if err != nil {
		return nil, fmt.Errorf("join by consul: %w", err)
	}
	return resp, nil
}

// clean takes the nonce out of the registration, also when there was no time
// left. One that stays is worth nothing.
func (p *consulProver) clean(ctx context.Context, cleanup func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := cleanup(ctx); err != nil {
		p.log.WarnContext(ctx, "proof of identity left in consul", "service_id", p.ServiceID, "err", err)
	}
}
