// Package workload serves the SPIFFE Workload API to the application beside an
// agent: its X.509-SVID with the key, and the trust bundle that others' are
// verified against, each anew when it changes. Whatever is built on go-spiffe,
// or another library of SPIFFE, works with it as it is.
//
//	server := workload.New(workload.Config{UID: uid, Logger: logger})
//	server.Set(workload.State{SVID: svid, Trust: trust})
//	listener, err := server.Listen("/run/orders/workload.sock")
//	err = server.Run(ctx, listener)
//
// It serves one workload: there is no request that names another. It answers
// processes of one user, on a bounded number of connections, and gives nothing
// to a request without the header that the SPIFFE Workload Endpoint demands
// (section 6), since that is what keeps a tricked client from asking. The
// profiles of JWT-SVIDs and WIT-SVIDs are disabled: their methods are
// Unimplemented.
package workload

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Bounds of what processes of the application can hold open.
const (
	maxConnections = 64
	maxStreams     = 16 // of each connection
	maxRequest     = 16 << 10
	maxHeaders     = 8 << 10
	idleTimeout    = 5 * time.Minute
)

// Config says whom to serve.
type Config struct {
	// UID is the user of the application.
	UID    uint32
	Logger *slog.Logger
}

// State is what the workload gets. It is immutable.
type State struct {
	// SVID is nil as long as there is none: who asks for it waits.
	SVID *SVID
	// TrustDomain names the domain of the roots and lists; without one, who asks
	// for them waits.
	TrustDomain string
	// Roots are the trust bundle.
	Roots []*x509.Certificate
	// CRLs are DER.
	CRLs [][]byte
	// Revoked says that the workload is entitled to no SVID any more. Its
	// application is told so, and may ask again.
	Revoked bool
}

// SVID is an X.509-SVID with its key.
type SVID struct {
	SPIFFEID string
	// Chain has the leaf first.
	Chain []*x509.Certificate
	Key   crypto.Signer
}

// Server serves the Workload API. It is safe for concurrent use.
type Server struct {
	config Config
	log    *slog.Logger
	// refusals keeps the log short when somebody tries again and again.
	refusals rate.Sometimes

	mu      sync.Mutex
	state   *responses
	changed chan struct{}
}

// New returns a server that has nothing to give yet.
func New(c Config) *Server {
	return &Server{
		config: c, log: c.Logger.With("component", "workload"),
		refusals: rate.Sometimes{First: 5, Interval: time.Minute},
		state:    &responses{}, changed: make(chan struct{}),
	}
}

// Set gives out state from now on, also on streams that are open.
func (s *Server) Set(state State) error {
	r, err := encode(state)
	if err != nil {
		return fmt.Errorf("workload api: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = r
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// current returns what is given out, and a channel that is closed when it
// changes.
func (s *Server) current() (*responses, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.changed
}

// Run serves on l, which [Server.Listen] returned, until ctx ends.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	server := grpc.NewServer(
		grpc.StreamInterceptor(requireHeader),
		grpc.UnaryInterceptor(requireHeaderUnary),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	workload.RegisterSpiffeWorkloadAPIServer(server, &service{server: s})
	defer context.AfterFunc(ctx, server.Stop)()
	if err := server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("workload api: %w", err)
	}
	return nil
}
