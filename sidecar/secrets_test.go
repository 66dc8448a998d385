package sidecar_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/envoy"
)

// secretStream asks for one secret, as Envoy does, and answers when it is told
// to.
type secretStream struct {
	t *testing.T
	secretv3.SecretDiscoveryService_DeltaSecretsClient
}

func openSecret(t *testing.T, e *fakeEnvoy, name string) (s *secretStream, end func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	stream, err := secretv3.NewSecretDiscoveryServiceClient(e.conn).DeltaSecrets(ctx, grpc.WaitForReady(true))
	check(t, err)
	check(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.SecretType, ResourceNamesSubscribe: []string{name}}))
	return &secretStream{t: t, SecretDiscoveryService_DeltaSecretsClient: stream}, cancel
}

// next returns the next response that has a secret.
func (s *secretStream) next() *discoveryv3.DeltaDiscoveryResponse {
	s.t.Helper()
	for {
		resp, err := s.Recv()
		check(s.t, err)
		if len(resp.GetResources()) > 0 {
			return resp
		}
		s.answer(resp, "")
	}
}

func (s *secretStream) answer(resp *discoveryv3.DeltaDiscoveryResponse, reason string) {
	s.t.Helper()
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.SecretType, ResponseNonce: resp.GetNonce()}
	if reason != "" {
		req.ErrorDetail = &statuspb.Status{Code: 13, Message: reason}
	}
	check(s.t, s.Send(req))
}

// What is told to the control plane is what Envoy really has: a step of a
// rotation waits for that.
func TestReportTellsWhichSecretsEnvoyTook(t *testing.T) {
	t.Parallel()
	cp, a, e := startMesh(t, "orders")
	eventually(t, "joined", joined(a))
	first := cp.ca.Trust().GetSequence()
	bundle, endBundle := openSecret(t, e, envoy.SecretBundle)
	defer endBundle()
	svid, endSVID := openSecret(t, e, envoy.SecretSVID)
	defer endSVID()
	unanswered := bundle.next()
	serial := a.Identity().Certificate.Serial
	eventually(t, "Envoy has taken nothing yet", func() error {
		return errors.Join(is(cp.lastReport().GetTrustSequence(), 0), is(cp.lastReport().GetSvidSerial(), ""))
	})
	bundle.answer(unanswered, "")
	svid.answer(svid.next(), "")
	eventually(t, "Envoy has taken both", func() error {
		return errors.Join(is(cp.lastReport().GetTrustSequence(), first), is(cp.lastReport().GetSvidSerial(), serial))
	})

	next, err := cp.ca.Prepare(false)
	check(t, err)
	cp.publishTrust()
	second := bundle.next()
	eventually(t, "the agent has it", func() error { return is(a.Identity().Trust.Sequence, cp.ca.Trust().GetSequence()) })
	bundle.answer(second, "no such curve")
	eventually(t, "the rejection is told", func() error {
		return errors.Join(is(cp.lastReport().GetTrustSequence(), first),
			is(strings.Contains(strings.Join(cp.lastReport().GetProblems(), ""), "secret bundle: no such curve"), true))
	})

	check(t, cp.ca.Activate(next.ID))
	_, err = cp.ca.RevokeSerial(cp.issue(orders).Serial(), "stolen")
	check(t, err)
	cp.publishTrust()
	bundle.answer(bundle.next(), "")
	eventually(t, "the next one is taken", func() error {
		return errors.Join(is(cp.lastReport().GetTrustSequence(), cp.ca.Trust().GetSequence()), is(len(cp.lastReport().GetProblems()), 0))
	})

	check(t, cp.ca.Taint(cp.own.Authority()))
	cp.publishTrust()
	fresh := svid.next()
	eventually(t, "the agent has renewed", func() error { return is(a.Identity().Certificate.Authority, next.ID) })
	if got := cp.lastReport().GetSvidSerial(); got != serial {
		t.Errorf("the certificate is %s, though Envoy has %s", got, serial)
	}
	svid.answer(fresh, "")
	eventually(t, "Envoy has taken the certificate of the other authority", func() error {
		return is(cp.lastReport().GetSvidAuthority(), next.ID)
	})
	endBundle()
	endSVID()
	eventually(t, "without streams, the agent's count", func() error {
		return is(cp.lastReport().GetTrustSequence(), cp.ca.Trust().GetSequence())
	})
}
