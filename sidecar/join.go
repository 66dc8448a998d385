package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	grpccredentials "google.golang.org/grpc/credentials"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/attest"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// joinTimeout bounds one attempt to join. Consul may take its time.
const joinTimeout = 15 * time.Second

// Join says how an agent without a good certificate proves which workload it
// is, and knows the control plane. At most one of TokenFile, Token and Consul
// is given; with none of them, the agent needs a certificate in its state
// directory.
type Join struct {
	// TokenFile holds a join token. It must be readable by its owner alone, and
	// is read at each attempt, so that a fresh token can be put there.
	TokenFile string
	// Token is a join token that somebody has read already.
	Token string
	// Consul proves a service by its registration.
	Consul *ConsulProof
	// TrustBundle is a PEM file with the roots that the control plane's
	// certificate must lead to. Without one, a join token says which, or the
	// trust that the agent had before does.
	TrustBundle string
}

// joiner obtains a certificate without having one.
type joiner struct {
	config Join
	target string
	id     identity.ID
	trust  *trust
	log    *slog.Logger
	// spent is the token that the control plane refused, and why.
	spent       string
	spentReason error
}

// prover proves over a connection which workload this is.
type prover interface {
	prove(ctx context.Context, client chancerypb.AttestationClient, req *chancerypb.EnrollRequest) (*chancerypb.EnrollResponse, error)
}

// errNoProof says that there is nothing to join with.
var errNoProof = errors.New("nothing to prove the workload's identity with: have \"chancery token create\" write a join token, " +
	"and give --join-token-file; or, for a service that Consul knows, --attest consul")

// isEmpty reports whether there is nothing to join with, and never will be.
func (j Join) isEmpty() bool {
	return j.TokenFile == "" && strings.TrimSpace(j.Token) == "" && j.Consul == nil
}

// join asks for a certificate with a proof of identity.
func (j *joiner) join(ctx context.Context, req *chancerypb.EnrollRequest) (*chancerypb.EnrollResponse, error) {
	prover, creds, err := j.prepare()
	if err != nil {
		return nil, err
	}
	conn, err := dial(j.target, creds)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return prover.prove(ctx, chancerypb.NewAttestationClient(conn), req)
}

// prepare returns the proof, and how to verify the control plane. There is no
// way not to.
func (j *joiner) prepare() (prover, grpccredentials.TransportCredentials, error) {
	switch {
	case j.config.Consul != nil:
		creds, err := j.knownCredentials()
		return &consulProver{ConsulProof: j.config.Consul, service: j.id.Name, log: j.log}, creds, err
	case j.config.TokenFile != "" || j.config.Token != "":
		token, err := j.token()
		if err != nil {
			return nil, nil, err
		}
		creds, err := j.tokenCredentials(token)
		return &tokenProver{joiner: j, token: token}, creds, err
	}
	return nil, nil, errNoProof
}

// knownCredentials verify the control plane by what was known before.
func (j *joiner) knownCredentials() (grpccredentials.TransportCredentials, error) {
	switch t := j.trust.current.Load(); {
	case j.config.TrustBundle != "":
		return j.bundleCredentials()
	case t != nil:
		return trustCredentials(t), nil
	}
	return nil, errors.New("nothing to verify the control plane by: give --trust-bundle with the output of \"chancery ca bundle\"")
}

// tokenCredentials verify it by what came with the token, unless an operator
// gave a bundle. Where the token names a root that is known, it is the trust of
// before that counts, which knows as well what was revoked under it.
func (j *joiner) tokenCredentials(token string) (grpccredentials.TransportCredentials, error) {
	if j.config.TrustBundle != "" {
		return j.bundleCredentials()
	}
	pins, err := attest.PinsOfToken(token)
	if err != nil {
		return nil, err
	}
	if t := j.trust.current.Load(); t != nil && slices.ContainsFunc(t.Roots(), pins.Contains) {
		return trustCredentials(t), nil
	}
	return identity.JoinCredentials(pins), nil
}

// trustCredentials verify it by a trust of before.
func trustCredentials(t *identity.Trust) grpccredentials.TransportCredentials {
	return hintingCredentials{identity.ClientCredentials(onlyTrust{t})}
}

// hintingCredentials say what to do when the control plane is not the one that
// was trusted before.
type hintingCredentials struct {
	grpccredentials.TransportCredentials
}

// Clone implements grpccredentials.TransportCredentials.
func (h hintingCredentials) Clone() grpccredentials.TransportCredentials { return h }

// ClientHandshake implements grpccredentials.TransportCredentials.
func (h hintingCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, grpccredentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		err = fmt.Errorf("%w; if the agent was away while the mesh's authority was replaced, "+
			"give --trust-bundle with the output of \"chancery ca bundle\"", err)
	}
	return conn, info, err
}

func (j *joiner) bundleCredentials() (grpccredentials.TransportCredentials, error) {
	text, err := os.ReadFile(j.config.TrustBundle)
	if err != nil {
		return nil, fmt.Errorf("trust bundle: %w", err)
	}
	pins, err := identity.PinsOfBundle(text)
	if err != nil {
		return nil, fmt.Errorf("trust bundle %q: %w", j.config.TrustBundle, err)
	}
	return identity.JoinCredentials(pins), nil
}

// onlyTrust verifies the control plane and presents no certificate.
type onlyTrust struct{ t *identity.Trust }

var _ identity.Source = onlyTrust{}

// SVID implements identity.Source.
func (onlyTrust) SVID() *identity.SVID { return nil }

// Trust implements identity.Source.
func (o onlyTrust) Trust() *identity.Trust { return o.t }
