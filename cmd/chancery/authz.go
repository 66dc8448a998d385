package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/chancery-mesh/chancery/internal/unixsocket"
)

// authzFlags are the flags of the decision point alone.
type authzFlags struct {
	listen, http string
	anybody      bool
	documentsFlags
	logFlags
}

// decisions are what a decision point answers from.
type decisions interface {
	// Register adds the Authorization service to a server.
	Register(grpc.ServiceRegistrar)
	// Run follows what is decided by until ctx ends.
	Run(ctx context.Context) error
	// Ready says why nothing can be decided yet; nil when it can.
	Ready() error
	// Handle adds what else is told over HTTP.
	Handle(mux *http.ServeMux)
}

func newAuthzCommand() *cobra.Command {
	var f authzFlags
	cmd := &cobra.Command{
		Use:   "authz --documents DIR --listen 127.0.0.1:PORT|unix:PATH",
		Short: "Run the decision point alone, for an Envoy that somebody else configures",
		Long: `Authz runs the external authorization service of a gateway without a control
plane: for an Envoy with a configuration of its own, for Istio as a CUSTOM
provider, for Envoy Gateway as extAuth.

It decides by the routes of a Gateway document: the first whose method and path a
request matches. What that document says of listeners and limits is for whoever
configures Envoy. Documents that change count as soon as they are valid; the keys
of identity providers are fetched here.

With --passport-key, requests go on with a Passport in place of their credentials,
and its public key is at /passport-keys of --http. Without, they go on as they
came.

Whoever can connect can ask for decisions about requests that nobody made, and so
for Passports. So it listens on loopback or a Unix socket, of which only its own
user may use the latter, unless --listen-to-anybody says otherwise.`,
		Example: `  chancery authz --documents ./mesh --listen 127.0.0.1:9191 --http 127.0.0.1:9192
  chancery authz --documents ./mesh --gateway public --listen unix:/run/chancery/authz.sock`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "", `where Envoy asks: an IP address and a port, or "unix:" and a path (required)`)
	flags.BoolVar(&f.anybody, "listen-to-anybody", false, "listen on addresses other than loopback, too. Let nobody but Envoy connect there")
	flags.StringVar(&f.http, "http", "", "address of /healthz, /readyz and /metrics (default none)")
	f.documentsFlags.add(cmd)
	f.logFlags.add(cmd)
	_ = cmd.MarkFlagRequired("listen")
	_ = cmd.MarkFlagRequired("documents")
	return cmd
}

func (f *authzFlags) run(cmd *cobra.Command) error {
	logger, err := f.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	metrics := newMetricsRegistry()
	source, err := f.documentsFlags.open(logger, metrics)
	if err != nil {
		return err
	}
	listener, err := f.listener(cmd.Context())
	if err != nil {
		return err
	}
	run := func(ctx context.Context) error { return serveAuthz(ctx, listener, source, logger) }
	return runWithHTTP(cmd.Context(), run, f.http, authzHandler(source, metrics))
}

// listener listens where only Envoy should be.
func (f *authzFlags) listener(ctx context.Context) (net.Listener, error) {
	if path, ok := strings.CutPrefix(f.listen, "unix:"); ok {
		return unixsocket.Listen(path)
	}
	address, err := netip.ParseAddrPort(f.listen)
	switch {
	case err != nil:
		return nil, fmt.Errorf("--listen %q: write an IP address and a port, such as 127.0.0.1:9191, or unix: and a path", f.listen)
	case !address.Addr().IsLoopback() && !f.anybody:
		return nil, fmt.Errorf("--listen %s: whoever can connect there can have requests decided that nobody made: "+
			"listen on loopback or a Unix socket, or say --listen-to-anybody and let only Envoy connect", f.listen)
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
}

// serveAuthz answers until ctx ends, and then those who have asked already.
func serveAuthz(ctx context.Context, listener net.Listener, source decisions, logger *slog.Logger) error {
	server := grpc.NewServer()
	source.Register(server)
	healthgrpc.RegisterHealthServer(server, health.NewServer())
	logger.Info("decision point listens", "address", listener.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return source.Run(ctx) })
	group.Go(func() error { return server.Serve(listener) })
	group.Go(func() error {
		<-ctx.Done()
		server.GracefulStop()
		return nil
	})
	return group.Wait()
}

func authzHandler(source decisions, metrics *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := source.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	source.Handle(mux)
	return mux
}

// keysDir makes the directory for the last good keys of identity providers.
func keysDir(state string) (string, error) {
	if state == "" {
		return "", nil
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return "", fmt.Errorf("--state: %w", err)
	}
	return state, nil
}

var errNotReady = errors.New("no valid documents yet")
