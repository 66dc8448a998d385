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
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/identity/attest"
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
	listen                                   string
	attest                                   []string
	withoutACLs                              bool
	authority                                authorityFlags
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

The certificate authority makes its own root, or works under yours: give a root
and its key, which is used only when an authority is prepared and may be away
otherwise; or an issuing certificate, its root and its key; or, for a key that is
in an HSM or a vault, a program that signs: it reads a SHA-256 digest (32 bytes)
from standard input, finds the key's identifier in CHANCERY_KEY_ID, and writes an
ECDSA signature (ASN.1 DER) to standard output. Keys are ECDSA, in PEM, mode 0600.

Agents connect to --listen by mutual TLS. An agent's first certificate is for a
join token ("chancery token create"), or, with "--attest consul", for what Consul
lets it write: the registration of its own service.`,
		Example: `  chancery serve --documents ./mesh --registry consul --listen 10.0.0.5:8600 --attest token,consul
  chancery serve --documents ./mesh --registry file:registry.yaml --run ./run --state ./state --http 127.0.0.1:9464`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.documents, "documents", "", "directory of the documents (required)")
	flags.StringVar(&f.registry, "registry", "", `"consul", or "file:" and the path of a file or directory (required)`)
	flags.StringVar(&f.runDir, "run", defaultRunDir, "directory for the socket of the other commands")
	flags.StringVar(&f.state, "state", defaultStateDir, "directory for the certificate authority and the last good state")
	flags.StringVar(&f.http, "http", "", "address of /healthz, /readyz and /metrics (default none)")
	flags.StringSliceVar(&f.networks, "networks", nil, "networks that instances may be in, such as 10.0.0.0/8 (default any but link-local and multicast)")
	flags.DurationVar(&f.holdFor, "hold-for", time.Hour, "how long to disbelieve that half of all instances vanished at once (Consul)")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8600", "address that agents connect to, by mutual TLS")
	flags.StringSliceVar(&f.attest, "attest", []string{"token"}, "how agents may prove who they are without a certificate: token, consul")
	flags.BoolVar(&f.withoutACLs, "consul-without-acls", false, "believe registrations also where Consul lets anybody write them. For tests")
	f.authority.add(flags)
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
	authority, err := f.authority.config()
	if err != nil {
		return err
	}
	metrics := newMetricsRegistry()
	registry, err := f.openRegistry(logger, metrics)
	if err != nil {
		return err
	}
	consulAttestation, err := f.attestation(logger, metrics)
	if err != nil {
		return err
	}
	server, err := controlplane.New(controlplane.Config{
		Documents:  f.documents,
		Options:    extauthz.DocumentOptions(),
		Registry:   registry,
		RunDir:     f.runDir,
		StateDir:   f.state,
		Listen:     f.listen,
		Consul:     consulAttestation,
		Authority:  authority,
		Version:    version(),
		Logger:     logger,
		Registerer: metrics,
		Gatherer:   metrics,
	})
	if err != nil {
		return err
	}
	return runWithHTTP(cmd.Context(), server.Run, f.http, server.Handler())
}

// attestation returns what agents prove themselves by beside join tokens.
func (f *serveFlags) attestation(logger *slog.Logger, metrics prometheus.Registerer) (*attest.ConsulConfig, error) {
	var config *attest.ConsulConfig
	for _, how := range f.attest {
		switch how {
		case "token":
		case "consul":
			config = &attest.ConsulConfig{WithoutACLs: f.withoutACLs, Logger: logger, Registerer: metrics}
		default:
			return nil, fmt.Errorf("--attest %q: write token, consul, or both with a comma", how)
		}
	}
	return config, nil
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
