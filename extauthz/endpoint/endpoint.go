// Package endpoint is where an Envoy that somebody else configures asks for
// decisions: a loopback port or a Unix socket, with the gRPC health service
// beside it. What decides is the caller's: see [Source].
package endpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/chancery-mesh/chancery/extauthz/wire"
	"github.com/chancery-mesh/chancery/internal/unixsocket"
)

// Source is what decides.
type Source interface {
	// Register adds Envoy's Authorization service to a server, which has the
	// options of package wire.
	Register(grpc.ServiceRegistrar)
	// Run follows what is decided by, until ctx ends. An error ends the endpoint.
	Run(ctx context.Context) error
	// Ready says why nothing can be decided yet; nil when it can.
	Ready() error
	// Handle adds what else is told over HTTP.
	Handle(mux *http.ServeMux)
}

// Config says what a [Server] serves.
type Config struct {
	// Listen is "ADDRESS:PORT", or "unix:PATH" for a socket. Whoever connects
	// can ask about requests that never were, so the address must be of this host
	// alone, unless AnyAddress says otherwise.
	Listen     string
	AnyAddress bool
	// SocketMode is that of the socket, at most 0660; default 0600.
	SocketMode fs.FileMode
	// Source decides. Required.
	Source Source
	// Drain is how long checks under way may take at the end; default 5s.
	Drain time.Duration
	// Logger is required.
	Logger *slog.Logger
	// Gatherer has what /metrics tells; nil tells nothing.
	Gatherer prometheus.Gatherer
}

// Server is an endpoint. [Server.Run] starts it.
type Server struct {
	config  Config
	address netip.AddrPort // of TCP
	socket  string         // of Unix
}

// New checks the configuration.
func New(c Config) (*Server, error) {
	if c.Source == nil || c.Logger == nil {
		return nil, errors.New("endpoint needs what decides and a logger")
	}
	c.Drain = cmp.Or(c.Drain, 5*time.Second)
	c.SocketMode = cmp.Or(c.SocketMode, 0o600)
	if c.SocketMode&^0o660 != 0 {
		return nil, fmt.Errorf("socket mode %04o: at most 0660: %w", c.SocketMode, ErrExposed)
	}
	s := &Server{config: c}
	path, isSocket := strings.CutPrefix(c.Listen, "unix:")
	if isSocket {
		if s.socket = path; path == "" || path[0] == '@' {
			return nil, fmt.Errorf("listen on %q: write unix: and a path; who may open it is said by its mode", c.Listen)
		}
		return s, nil
	}
	var err error
	if s.address, err = netip.ParseAddrPort(c.Listen); err != nil {
		return nil, fmt.Errorf("listen on %q: write an IP address and a port, such as 127.0.0.1:9191, or unix: and a path", c.Listen)
	}
	if !s.address.Addr().Unmap().IsLoopback() && !c.AnyAddress {
		return nil, fmt.Errorf("listen on %s: %w", c.Listen, ErrExposed)
	}
	return s, nil
}

// ErrExposed says that others than Envoy could ask for decisions.
var ErrExposed = errors.New("others could ask for decisions about requests that never were")

// Run serves until ctx ends, or the source fails.
func (s *Server) Run(ctx context.Context) error {
	listener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	server := grpc.NewServer(append(wire.ServerOptions(),
		grpc.MaxConcurrentStreams(maxConcurrent),
		// Envoy pings every ten seconds if it is told to, which gRPC would take for abuse.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	s.config.Source.Register(server)
	healthv1.RegisterHealthServer(server, health{ready: s.config.Source.Ready})
	s.config.Logger.InfoContext(ctx, "decision point listens", "address", listener.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.config.Source.Run(ctx) })
	group.Go(func() error {
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve authorization: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		s.stop(server)
		return nil
	})
	return group.Wait()
}

// maxConcurrent bounds checks at a time on one connection.
const maxConcurrent = 4096

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if s.socket != "" {
		l, err := unixsocket.Listen(s.socket)
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(s.socket, s.config.SocketMode); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		return l, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address.String())
	if err != nil {
		return nil, fmt.Errorf("serve authorization: %w", err)
	}
	return l, nil
}

// stop lets checks under way end, for a while.
func (s *Server) stop(server *grpc.Server) {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		server.GracefulStop()
	}()
	select {
	case <-drained:
	case <-time.After(s.config.Drain):
		server.Stop() // which ends GracefulStop, too
		<-drained
	}
}

// Handler serves /healthz, /readyz, /metrics and what the source has besides.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.config.Source.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if s.config.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(s.config.Gatherer, promhttp.HandlerOpts{}))
	}
	s.config.Source.Handle(mux)
	return mux
}
