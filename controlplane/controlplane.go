// Package controlplane turns the documents and what the registry says into
// views, and serves each agent its own by delta ADS.
//
//	cp, err := controlplane.New(controlplane.Config{
//		Documents: "/etc/chancery",
//		Registry:  registry,
//		RunDir:    "/run/chancery",
//		StateDir:  "/var/lib/chancery",
//	})
//	...
//	err = cp.Run(ctx) // until ctx ends
//
// Who an agent is comes from the socket that it connects to, and never from
// what it says. It sees the view of its gateway or service alone; of what all
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
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
	"github.com/chancery-mesh/chancery/internal/xds"
	"github.com/chancery-mesh/chancery/mesh"
)

// Config of a [Server].
type Config struct {
	// Documents is the directory of the documents; required.
	Documents string
	// CheckExpression judges the expressions in documents; required, see
	// [mesh.Options].
	CheckExpression func(source string) []mesh.ExpressionFault
	// Registry says where services run; required. The server runs it.
	Registry discovery.Registry
	// RunDir is where the sockets are; required. See [identity.SocketPath]
	// and [AdminSocket].
	RunDir string
	// Listen is the TCP address that agents connect to, with mutual TLS; empty
	// is none.
	Listen string
	// StateDir keeps what must outlive the process, the certificate
	// authority's key among it; required, mode 0700.
	StateDir string
	// AgentUID is a further user that agents run as, who is given their
	// directories (which takes root); 0 is none but root and this user.
	AgentUID uint32
	// CertificateTTL is the life of workloads' certificates; default 24h, at
	// most [identity.MaxTTL].
	CertificateTTL time.Duration
	// HTTPClient fetches the keys of identity providers, under a guard;
	// default [http.DefaultClient].
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

	cfg     Config
	log     *slog.Logger
	metrics *metrics
	started time.Time
	grpc    *grpc.Server

	views       *views
	endpoints   *endpoints
	keyring     *keyring
	passports   *passportKeys
	proxies     *proxies
	sockets     *sockets
	enrollments limits[identity.ID]
	rejections  limits[identity.ID]

	mu        sync.Mutex
	documents documents
	saved     *stateFile
	ca        *identity.CA
	workloads []identity.ID
	wanted    []string
}

// New returns a control plane that [Server.Run] starts.
func New(cfg Config) (*Server, error) {
	for name, missing := range map[string]bool{
		"Documents":       cfg.Documents == "",
		"CheckExpression": cfg.CheckExpression == nil,
		"Registry":        cfg.Registry == nil,
		"RunDir":          cfg.RunDir == "",
		"StateDir":        cfg.StateDir == "",
	} {
		if missing {
			return nil, fmt.Errorf("control plane: Config.%s is missing", name)
		}
	}
	cfg.CertificateTTL = min(cmp.Or(cfg.CertificateTTL, 24*time.Hour), identity.MaxTTL)
	log := cmp.Or(cfg.Logger, slog.Default()).With("component", "controlplane")
	keys := filepath.Join(cfg.StateDir, "keys")
	for _, dir := range []string{cfg.StateDir, keys} {
		if err := identity.PrivateDir(dir); err != nil {
			return nil, fmt.Errorf("control plane: state directory: %w", err)
		}
	}
	passports, err := openPassportKeys(filepath.Join(cfg.StateDir, "passport-keys.json"), cfg.CertificateTTL, log)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	m := newMetrics(cfg.Registerer)
	s := &Server{
		cfg:       cfg,
		log:       log,
		metrics:   m,
		started:   time.Now(),
		endpoints: newEndpoints(filepath.Join(cfg.StateDir, "endpoints.json"), log, m.pushes),
		keyring:   newKeyring(keys, cfg, log, m),
		passports: passports,
		proxies:   newProxies(),

		enrollments: limits[identity.ID]{perSecond: 20, burst: 200},
		// Each rejection may compile the whole mesh.
		rejections: limits[identity.ID]{perSecond: 2, burst: 20},
		documents: documents{
			dir:        cfg.Documents,
			options:    mesh.Options{CheckExpression: cfg.CheckExpression},
			quarantine: quarantine{},
		},
	}
	s.views = newViews(map[string]*xds.Collection{
		resource.EndpointType: &s.endpoints.collection,
		providerType:          &s.keyring.collection,
		passportKeysType:      &s.passports.collection,
	})
	s.saved = newStateFile(filepath.Join(cfg.StateDir, "documents.json"), log, s.toSave)
	if err := s.restore(); err != nil {
		log.Error("documents of an earlier process not used", "err", err)
	}
	s.grpc = s.newGRPC()
	s.sockets = newSockets(log, s.grpc.Serve, func(id identity.ID) (net.Listener, error) {
		return identity.Listen(cfg.RunDir, id, cfg.AgentUID)
	})
	return s, nil
}
