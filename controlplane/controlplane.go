// Package controlplane turns the documents and what the registry says into
// views, and serves each agent its own by delta ADS.
//
//	cp, err := controlplane.New(controlplane.Config{
//		Documents: "/etc/chancery",
//		Registry:  registry,
//		Listen:    "10.0.0.5:8600",
//		RunDir:    "/run/chancery",
//		StateDir:  "/var/lib/chancery",
//	})
//	...
//	err = cp.Run(ctx) // until ctx ends
//
// Who an agent is comes from the certificate that it connects with, and never
// from what it says. It sees the view of its gateway or service alone; of what all
// views share (endpoints, identity providers, Passport keys), only the names
// that its view refers to. A document that goes takes its streams along.
//
// A bad document takes nothing down. What is not valid is not served; the last
// good state is, after a restart too. What is valid, and an Envoy rejects it
// nevertheless, goes into quarantine: its last version that was accepted is
// served until it changes. Proxies that connect meanwhile are given the last
// revision that some proxy has acknowledged whole.
//
// The package does not know how Envoy's resources are written, which package
// envoy does, nor how requests are decided.
package controlplane

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/identity/attest"
	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/mesh"
)

// Config of a [Server].
type Config struct {
	// Documents is the directory of the documents; required.
	Documents string
	// Options judge what package mesh cannot; CheckExpression is required.
	Options mesh.Options
	// Registry says where services run; required. The server runs it.
	Registry discovery.Registry
	// RunDir is where the [AdminSocket] is; required.
	RunDir string
	// Listen is the TCP address that agents connect to, with mutual TLS;
	// required.
	Listen string
	// StateDir keeps what must outlive the process, the certificate
	// authority's key among it; required, mode 0700.
	StateDir string
	// Authority is for the certificate authority.
	Authority AuthorityConfig
	// Consul lets agents of services prove in Consul who they are; nil does
	// not. The audit log is the server's.
	Consul *attest.ConsulConfig
	// HTTPClient fetches the keys of identity providers, under a guard;
	// default: one that calls what their documents allow.
	HTTPClient *http.Client
	// Version of the program, to show.
	Version string
	// Logger; default [slog.Default].
	Logger *slog.Logger
	// Registerer of the metrics; default none.
	Registerer prometheus.Registerer
	// Gatherer is what /metrics of [Server.Handler] shows; default none.
	Gatherer prometheus.Gatherer
}

// Server is the control plane.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	chancerypb.UnimplementedControlPlaneServer
	chancerypb.UnimplementedAttestationServer

	cfg     Config
	log     *slog.Logger
	metrics *metrics
	started time.Time
	grpc    *grpc.Server
	address atomic.Pointer[net.Addr]
	self    *self
	door    *door
	// revocationWait is revocationWait, but for tests.
	revocationWait time.Duration
	trusts         xds.Collection
	// trusting is held by who makes a Trust that of all connections.
	trusting sync.Mutex

	views       *views
	endpoints   *endpoints
	providers   *providers
	accounts    xds.Collection
	passports   *passportKeys
	revocations *revocations
	proxies     *proxies
	rotation    *rotation
	tokens      *attest.Tokens
	consul      *attest.Consul
	audit       *audit.Log
	enrollments limits[identity.ID]
	renewals    limits[string]
	rejections  limits[identity.ID]
	// attempts bounds those to join, of one address and of all.
	attempts    limits[netip.Addr]
	allAttempts *rate.Limiter

	mu        sync.Mutex
	documents documents
	saved     *stateFile
	// opened is closed once there is an authority; leaf is how long workloads'
	// certificates live.
	opened chan struct{}
	ca     *ca.CA
	sealed sealed
	leaf   time.Duration
	wanted []string
}

// New returns a control plane that [Server.Run] starts.
func New(cfg Config) (*Server, error) {
	for name, missing := range map[string]bool{
		"Documents":               cfg.Documents == "",
		"Options.CheckExpression": cfg.Options.CheckExpression == nil,
		"Registry":                cfg.Registry == nil,
		"RunDir":                  cfg.RunDir == "",
		"Listen":                  cfg.Listen == "",
		"StateDir":                cfg.StateDir == "",
	} {
		if missing {
			return nil, fmt.Errorf("control plane: Config.%s is missing", name)
		}
	}
	log := cmp.Or(cfg.Logger, slog.Default()).With("component", "controlplane")
	keys := filepath.Join(cfg.StateDir, "keys")
	for _, dir := range []string{cfg.StateDir, keys} {
		if err := identity.PrivateDir(dir); err != nil {
			return nil, fmt.Errorf("control plane: state directory: %w", err)
		}
	}
	passports, err := openPassportKeys(filepath.Join(cfg.StateDir, "passport-keys.json"), log)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	revocations, err := openRevocations(filepath.Join(cfg.StateDir, "revocations"), log)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	providers, err := newProviders(keys, cfg, log)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	record, err := audit.Open(filepath.Join(cfg.StateDir, "audit.jsonl"), cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	tokens, err := attest.OpenTokens(filepath.Join(cfg.StateDir, "tokens.json"), record)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control plane: %w", err), record.Close())
	}
	var consul *attest.Consul
	if cfg.Consul != nil {
		c := *cfg.Consul
		c.Audit = record
		if consul, err = attest.NewConsul(c); err != nil {
			return nil, errors.Join(fmt.Errorf("control plane: %w", err), record.Close())
		}
	}
	m := newMetrics(cfg.Registerer)
	s := &Server{
		cfg: cfg, revocationWait: revocationWait,
		log:         log,
		metrics:     m,
		started:     time.Now(),
		opened:      make(chan struct{}),
		self:        &self{},
		endpoints:   newEndpoints(filepath.Join(cfg.StateDir, "endpoints.json"), log, m.pushes),
		providers:   providers,
		passports:   passports,
		revocations: revocations,
		proxies:     newProxies(),
		tokens:      tokens,
		consul:      consul,
		audit:       record,

		// A thousand instances may come back at once.
		enrollments: limits[identity.ID]{perSecond: 100, burst: 2000},
		// A certificate of ten seconds is renewed every five.
		renewals:    limits[string]{perSecond: 0.5, burst: 20},
		attempts:    limits[netip.Addr]{perSecond: 1, burst: 10},
		allAttempts: rate.NewLimiter(100, 500),
		// Each rejection may compile the whole mesh.
		rejections: limits[identity.ID]{perSecond: 2, burst: 20},
		documents: documents{
			dir:        cfg.Documents,
			options:    cfg.Options,
			quarantine: quarantine{},
			refused:    map[mesh.DocumentID]refusals{},
		},
	}
	s.rotation = newRotation(s.proxies, log, m, s.recordStep)
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(identityMetrics{s}); err != nil {
			return nil, fmt.Errorf("control plane: %w", err)
		}
	}
	s.views = newViews(map[string]*xds.Collection{
		resource.EndpointType: &s.endpoints.collection,
		providerType:          &s.providers.collection,
		accountsType:          &s.accounts,
		passportKeysType:      &s.passports.collection,
		trustType:             &s.trusts,
		revocationsType:       &s.revocations.collection,
		signingKeysType:       &s.passports.signing,
	})
	s.saved = newStateFile(filepath.Join(cfg.StateDir, "documents.json"), log, s.toSave)
	if err := s.restore(); err != nil {
		log.Error("documents of an earlier process not used", "err", err)
	}
	s.door = newDoor(s.self, m, s.lineageOf)
	s.grpc = s.newGRPC()
	return s, nil
}
