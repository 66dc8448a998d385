package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/discovery"
	"github.com/chancery-mesh/chancery/discovery/consul"
	"github.com/chancery-mesh/chancery/discovery/file"
	"github.com/chancery-mesh/chancery/extauthz/policy"
)

const (
	defaultRunDir   = "/run/chancery"
	defaultStateDir = "/var/lib/chancery"
)

// serveFlags are the flags of the control plane.
type serveFlags struct {
	documents, registry, runDir, state, http string
	networks                                 []string
	holdFor                                  time.Duration
	agentUID                                 uint32
	logFlags
}

func newServeCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve --documents DIR --registry consul|file:PATH",
		Short: "Run the control plane",
		Long: `Serve runs the control plane: it watches the documents and the registry, signs
workloads' certificates, and serves each agent its own configuration.

With "--registry consul", Consul is found by its usual environment:
CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN_FILE, CONSUL_CACERT and so on. With
"--registry file:PATH", a YAML file or a directory of them says where services
run; see the package documentation of discovery/file.

Each agent has a socket of its own, whose path says who it is:
<run>/service/<name>/control.sock and <run>/gateway/<name>/control.sock. Give
each workload its own directory and no other: agents that share a user and a
view of the file system can pass for each other.`,
		Example: `  chancery serve --documents ./mesh --registry consul
  chancery serve --documents ./mesh --registry file:registry.yaml --run ./run --state ./state --http 127.0.0.1:9464`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.documents, "documents", "", "directory of the documents (required)")
	flags.StringVar(&f.registry, "registry", "", `"consul", or "file:" and the path of a file or directory (required)`)
	flags.StringVar(&f.runDir, "run", defaultRunDir, "directory for sockets")
	flags.StringVar(&f.state, "state", defaultStateDir, "directory for the certificate authority and the last good state")
	flags.StringVar(&f.http, "http", "", "address of /healthz, /readyz and /metrics (default none)")
	flags.StringSliceVar(&f.networks, "networks", nil, "networks that instances may be in, such as 10.0.0.0/8 (default any but link-local and multicast)")
	flags.DurationVar(&f.holdFor, "hold-for", time.Hour, "how long to disbelieve that half of all instances vanished at once (Consul)")
	flags.Uint32Var(&f.agentUID, "agent-uid", 0, "further user that agents run as")
	f.logFlags.add(cmd)
	_ = cmd.MarkFlagRequired("documents")
	_ = cmd.MarkFlagRequired("registry")
	return cmd
}

func (f *serveFlags) run(cmd *cobra.Command) error {
	logger, err := f.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	metrics := newMetricsRegistry()
	registry, err := f.openRegistry(logger, metrics)
	if err != nil {
		return err
	}
	server, err := controlplane.New(controlplane.Config{
		Documents:       f.documents,
		CheckExpression: policy.Check,
		Registry:        registry,
		RunDir:          f.runDir,
		StateDir:        f.state,
		AgentUID:        f.agentUID,
		Version:         version(),
		Logger:          logger,
		Registerer:      metrics,
		Gatherer:        metrics,
	})
	if err != nil {
		return err
	}
	return runWithHTTP(cmd.Context(), server.Run, f.http, server.Handler())
}

func (f *serveFlags) openRegistry(logger *slog.Logger, metrics prometheus.Registerer) (discovery.Registry, error) {
	networks, err := parseNetworks(f.networks)
	if err != nil {
		return nil, err
	}
	path, isFile := strings.CutPrefix(f.registry, "file:")
	switch {
	case isFile:
		return file.New(file.Config{Path: path, Networks: networks, Logger: logger, Registerer: metrics})
	case f.registry == "consul":
		return consul.New(consul.Config{HoldFor: f.holdFor, Networks: networks, Logger: logger, Registerer: metrics})
	}
	return nil, fmt.Errorf("--registry %q: write consul, or file: and a path", f.registry)
}

func parseNetworks(texts []string) (discovery.Networks, error) {
	var networks discovery.Networks
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--networks %q: write a network such as 10.0.0.0/8", text)
		}
		networks = append(networks, network)
	}
	return networks, nil
}
