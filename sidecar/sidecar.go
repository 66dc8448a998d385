// Package sidecar is the agent beside one Envoy, of a gateway or of a service's
// instance.
//
// The agent is a client of the control plane and the whole world of its Envoy.
// Over one Unix socket it serves Envoy its configuration (ADS), its certificate
// and key (SDS) and the answer to every request's check (ext_authz). Its parts:
//
//   - upstream keeps what the control plane says about this workload, in held.
//   - rollout brings each revision of it to Envoy, make before break, and keeps
//     the policy decision point (pdp) on the policy that Envoy's routes ask for.
//   - book is the account of what Envoy acknowledged and rejected; reporter
//     tells it to the control plane.
//   - disk keeps the last good state, so that agent and Envoy start without a
//     control plane.
//   - credentials keeps the workload's certificate: joiner proves who it is for
//     the first one, and each is renewed in time by the one before. A gateway's
//     keys for Passports are passportKeys.
//   - keeper keeps what was decided, in the decision log and for a while in
//     memory, which the socket for commands tells of.
//   - trust keeps what others are verified by, and revocations which credentials
//     of users are refused: neither goes back.
//   - contact is when the control plane last had nothing newer.
//   - connection is that to the control plane, with the newest certificate.
//   - supervisor runs Envoy, which lives on when the agent dies.
//
// It refuses to know what the configuration means: it translates nothing and
// decides nothing itself. When in doubt Envoy keeps what it has, and the
// decision point denies.
package sidecar

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/extauthz/introspection"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/workload"
)

// Config says what an agent is for. Identity, ControlPlane, StateDir and
// Logger are required.
type Config struct {
	// Identity is the gateway or service. The control plane knows it by the
	// certificate; here it says what that must name.
	Identity identity.ID
	// Instance tells the instances of one service apart for people; by
	// default the host's name.
	Instance string
	// ControlPlane is the control plane's address, host and port.
	ControlPlane string
	// Join says how to prove the identity without a good certificate.
	Join Join
	// StateDir keeps keys, certificate, last good state and sockets. It is
	// made with mode 0700, must have it, and belongs to one agent at a time.
	StateDir string
	// Local is where this instance differs from the others.
	Local envoy.Local
	// PassportKeys is the file that a service's application reads the public
	// keys of Passports from ([passport.OpenFile]); by default
	// "passport-keys.json" in StateDir.
	PassportKeys string
	// WorkloadSocket is where the application beside a service's sidecar finds the
	// SPIFFE Workload API; by default "workload.sock" in StateDir. For an
	// application of another user it must be in a directory that it can enter.
	WorkloadSocket string
	// ApplicationUID is the user of the application, who alone is served there;
	// nil is the agent's own.
	ApplicationUID *uint32
	// Certificates is the directory of a gateway's server certificates, and of who
	// signs its clients' certificates; see package certfile.
	Certificates string
	// AllowSelfSigned lets a public gateway serve self-signed certificates, as a
	// demonstration does.
	AllowSelfSigned bool
	// Secrets is the directory of the secrets that a gateway asks identity
	// providers with; see package introspection.
	Secrets string
	// DecisionLog is where decisions are written, nil for nowhere: policies that
	// require it are then answered with 503. The agent closes it.
	DecisionLog audit.Sink
	// EnvoyCommand starts Envoy, which the agent then supervises; empty where
	// somebody else runs one with [Config.Bootstrap].
	EnvoyCommand []string
	// DrainTime bounds how long Envoy's connections may take to end when the
	// agent is told to; by default 5 seconds.
	DrainTime time.Duration
	// Version is the agent's own, for people.
	Version string
	Logger  *slog.Logger
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
}

// The files of a StateDir that others come to see.
const (
	envoySocket   = "envoy.sock"
	adminSocket   = "admin.sock"
	bootstrapFile = "envoy.yaml"
	pidFile       = "envoy.pid"
	lockFile      = "lock"
)

func (c Config) path(name string) string { return filepath.Join(c.StateDir, name) }

// Bootstrap returns the YAML that an Envoy beside this agent starts with.
func (c Config) Bootstrap() ([]byte, error) {
	dir, err := filepath.Abs(c.StateDir)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	return envoy.YAML(envoy.Bootstrap(envoy.BootstrapConfig{
		NodeID:      c.Identity.String() + "/" + c.Instance,
		Cluster:     c.Identity.String(),
		Socket:      filepath.Join(dir, envoySocket),
		AdminSocket: filepath.Join(dir, adminSocket),
	}))
}

// Agent is the agent beside one Envoy.
type Agent struct {
	config      Config
	log         *slog.Logger
	metrics     *metrics
	held        *held
	book        *book
	downstream  *downstream
	endpoints   *endpoints
	pdp         *pdp
	rollout     *rollout
	credentials *credentials
	revocations *revocations
	contact     *contact
	problems    *problems
	// keeper keeps decisions, in the log as well, which is nil if there is none.
	keeper      *decisions.Keeper
	decisionLog *audit.DecisionLog
	// certificates are a gateway's own, workload serves a service's application;
	// nil elsewhere.
	certificates *certificates
	workload     *workload.Server
	// found says that an earlier agent's Envoy may be there, and has yet to say
	// what it holds.
	found atomic.Bool
	// controlPlane says that the control plane's stream is open.
	controlPlane atomic.Bool
}

// New returns an agent that does nothing yet.
func New(c Config) (*Agent, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a := &Agent{config: c, log: c.Logger.With("component", "sidecar"), held: newHeld()}
	a.found.Store(len(c.EnvoyCommand) > 0)
	a.metrics = newMetrics(func() bool { _, ok := a.book.connected(); return ok })
	a.book = newBook(a.log, a.metrics.nacks)
	a.problems = &problems{changed: a.book.touch}
	a.downstream = newDownstream(a.book, a.problems)
	a.credentials = a.newCredentials()
	a.revocations = newRevocations(c.path(revocationsFile), a.log, a.revoked)
	a.contact = &contact{path: c.path(contactFile), log: a.log}
	decider, err := a.newDecider()
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if a.decisionLog, err = a.newDecisionLog(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a.pdp = &pdp{
		id: c.Identity, server: decider, held: a.held,
		keys: applicationKeys{path: c.PassportKeys, log: a.log},
	}
	a.endpoints = &endpoints{held: a.held, served: a.downstream.resources[resource.EndpointType]}
	a.rollout = &rollout{
		local: c.Local, downstream: a.downstream, book: a.book, endpoints: a.endpoints, pdp: a.pdp, held: a.held, log: a.log,
		next: make(chan *revision, 1), again: make(chan struct{}, 1), probation: probation,
	}
	if c.Identity.Role == identity.RoleGateway {
		a.certificates = newCertificates(c, a.downstream.secrets.secrets, a.problems.set)
		a.rollout.certificates = a.certificates
		a.metrics.others = []prometheus.Collector{a.certificates.expiry, a.certificates.refused}
	} else {
		a.workload = newWorkloadAPI(c)
	}
	if err := a.metrics.register(c.Registerer); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return a, nil
}

// newDecider returns what decides. Services ask nobody: they take Passports.
func (a *Agent) newDecider() (*extauthz.Server, error) {
	c := extauthz.Config{
		Logger:     a.config.Logger,
		Registerer: a.config.Registerer,
		Signer:     a.credentials.passports.signer,
		Record:     a.record,
		Contact:    a.contact.last,
	}
	if a.config.Identity.Role == identity.RoleGateway {
		introspector, err := introspection.New(introspection.Config{
			Secret: introspection.Secrets(a.config.Secrets), Logger: a.config.Logger, Registerer: a.config.Registerer,
		})
		if err != nil {
			return nil, err
		}
		c.Introspector = introspector
	}
	return extauthz.New(c)
}

func isHostPort(address string) bool {
	host, port, err := net.SplitHostPort(address)
	return err == nil && host != "" && port != ""
}

// complete fills in defaults and rejects what is missing.
func (c *Config) complete() error {
	switch {
	case c.Identity.IsZero():
		return errors.New("no identity")
	case c.ControlPlane == "":
		return errors.New("no control plane")
	case !isHostPort(c.ControlPlane):
		return fmt.Errorf("control plane %q: write host and port, such as control.shop.example:8600", c.ControlPlane)
	case c.StateDir == "":
		return errors.New("no state directory")
	case c.Logger == nil:
		return errors.New("no logger")
	}
	if c.Instance == "" {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		c.Instance = name
	}
	if c.PassportKeys == "" {
		c.PassportKeys = c.path("passport-keys.json")
	}
	if c.WorkloadSocket == "" {
		c.WorkloadSocket = c.path("workload.sock")
	}
	if c.DrainTime == 0 {
		c.DrainTime = 5 * time.Second
	}
	return nil
}
