package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/sidecar"
)

// secretsUsage is of --secrets.
const secretsUsage = "directory of the secrets that IdentityProvider documents name, to ask about tokens with: NAME.secret, mode 0600"

// agentFlags are the flags of the agents of gateways and services.
type agentFlags struct {
	name, instance, state, http    string
	controlPlane                   string
	inbound, outbound, application string
	passportKeys                   string
	workloadSocket                 string
	applicationUID                 int64
	certificates, secrets          string
	allowSelfSigned                bool
	drain                          time.Duration
	joinFlags
	decisionLogFlags
	logFlags
}

func newSidecarCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "sidecar --service NAME --control-plane HOST:PORT --state DIR [-- envoy ARGS…]",
		Short: "Run the agent beside a service's Envoy",
		Long: `Sidecar runs the agent beside the Envoy of one service instance: it obtains the
workload's certificate and renews it, gives Envoy its configuration, and decides
its requests.

The first certificate takes a proof of identity: a join token, or what the agent
may write in Consul, which is found by its usual environment.

What follows "--" is the Envoy to start and supervise. Without it, start one
yourself with the output of "chancery bootstrap".`,
		Example: `  chancery sidecar --service orders --control-plane control.shop.example:8600 \
      --join-token-file orders.token --state /var/lib/chancery/orders --application 127.0.0.1:8080 -- envoy
  chancery sidecar --service orders --control-plane control.shop.example:8600 \
      --attest consul --consul-service-id orders-1 --trust-bundle mesh.pem --state /var/lib/chancery/orders`,
		RunE: running(func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, identity.RoleService, args)
		}),
	}
	cmd.Flags().StringVar(&f.name, "service", "", "the service's name (required)")
	cmd.Flags().StringVar(&f.inbound, "inbound", envoy.DefaultInbound.String(), "address that calls from other workloads come in at")
	cmd.Flags().StringVar(&f.outbound, "outbound", envoy.DefaultOutbound.String(), "address that the application makes its own calls to")
	cmd.Flags().StringVar(&f.application, "application", envoy.DefaultApplication.String(), "address that the application listens on")
	cmd.Flags().StringVar(&f.passportKeys, "passport-keys", "", `file to keep the public keys of Passports in, for the application (default "passport-keys.json" in --state)`)
	cmd.Flags().StringVar(&f.workloadSocket, "workload-socket", "", `socket of the SPIFFE Workload API, for the application (default "workload.sock" in --state)`)
	cmd.Flags().Int64Var(&f.applicationUID, "application-uid", -1, "user ID of the application, who alone is served there (default the agent's own)")
	f.addConsul(cmd)
	f.add(cmd, "service")
	return cmd
}

func newGatewayCommand() *cobra.Command {
	f := agentFlags{applicationUID: -1, joinFlags: joinFlags{attest: "token"}}
	cmd := &cobra.Command{
		Use:   "gateway --name NAME --control-plane HOST:PORT --state DIR [-- envoy ARGS…]",
		Short: "Run the agent beside a gateway's Envoy",
		Long: `Gateway runs the agent beside an Envoy at the edge: it obtains the gateway's
certificate and renews it, makes and keeps the keys that sign its Passports, gives
Envoy its configuration, and decides its requests.

The first certificate takes a join token.

What follows "--" is the Envoy to start and supervise. Without it, start one
yourself with the output of "chancery bootstrap".`,
		Example: `  chancery gateway --name public --control-plane control.shop.example:8600 \
      --join-token-file public.token --state /var/lib/chancery/public -- envoy`,
		RunE: running(func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, identity.RoleGateway, args)
		}),
	}
	cmd.Flags().StringVar(&f.name, "name", "", "the gateway's name (required)")
	cmd.Flags().StringVar(&f.inbound, "listen", "", "address that clients come in at, instead of the document's")
	cmd.Flags().StringVar(&f.certificates, "certificates", "", "directory of the certificates that the gateway's document names: NAME.crt with NAME.key, NAME.ca.crt")
	cmd.Flags().BoolVar(&f.allowSelfSigned, "allow-self-signed", false, "serve self-signed certificates at a public gateway, too, as in a demonstration")
	cmd.Flags().StringVar(&f.secrets, "secrets", "", secretsUsage)
	f.add(cmd, "name")
	return cmd
}

func (f *agentFlags) add(cmd *cobra.Command, name string) {
	flags := cmd.Flags()
	flags.StringVar(&f.instance, "instance", "", "name of this instance, for people (default the host's name)")
	flags.StringVar(&f.controlPlane, "control-plane", "", "host and port of the control plane (required)")
	flags.StringVar(&f.state, "state", "", "directory for keys, sockets and the last good state; belongs to this agent alone (required)")
	flags.StringVar(&f.http, "http", "", "address of /healthz, /readyz, /status and /metrics (default none)")
	flags.DurationVar(&f.drain, "drain-time", 5*time.Second, "longest wait for Envoy's connections to end at shutdown")
	f.joinFlags.add(cmd)
	f.decisionLogFlags.add(cmd)
	f.logFlags.add(cmd)
	for _, required := range []string{name, "control-plane", "state"} {
		_ = cmd.MarkFlagRequired(required)
	}
}

func (f *agentFlags) run(cmd *cobra.Command, role identity.Role, envoyCommand []string) error {
	logger, err := f.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	local, err := f.local()
	if err != nil {
		return err
	}
	uid, err := f.uid()
	if err != nil {
		return err
	}
	join, err := f.join(cmd)
	if err != nil {
		return err
	}
	sink, err := f.sink(f.state, logger)
	if err != nil {
		return err
	}
	extauthz.SpareGC()
	registry := newMetricsRegistry()
	agent, err := sidecar.New(sidecar.Config{
		Identity:        identity.ID{Role: role, Name: f.name},
		Instance:        f.instance,
		ControlPlane:    f.controlPlane,
		Join:            join,
		StateDir:        f.state,
		Local:           local,
		PassportKeys:    f.passportKeys,
		WorkloadSocket:  f.workloadSocket,
		ApplicationUID:  uid,
		Certificates:    f.certificates,
		AllowSelfSigned: f.allowSelfSigned,
		Secrets:         f.secrets,
		DecisionLog:     sink,
		EnvoyCommand:    envoyCommand,
		DrainTime:       f.drain,
		Version:         version(),
		Logger:          logger,
		Registerer:      registry,
	})
	if err != nil {
		return err
	}
	return runWithHTTP(cmd.Context(), agent.Run, f.http, agent.Handler())
}

// uid returns the application's user, or nil for the agent's own.
func (f *agentFlags) uid() (*uint32, error) {
	if f.applicationUID < 0 {
		return nil, nil
	}
	uid := uint32(f.applicationUID)
	if int64(uid) != f.applicationUID {
		return nil, fmt.Errorf("--application-uid %d is not a user ID", f.applicationUID)
	}
	return &uid, nil
}

func (f *agentFlags) local() (envoy.Local, error) {
	var local envoy.Local
	for _, flag := range []struct {
		text    string
		address *netip.AddrPort
	}{
		{f.inbound, &local.Inbound},
		{f.outbound, &local.Outbound},
		{f.application, &local.Application},
	} {
		if flag.text == "" {
			continue
		}
		address, err := netip.ParseAddrPort(flag.text)
		if err != nil {
			return local, fmt.Errorf("address %q: write an IP address and a port, such as 127.0.0.1:8080", flag.text)
		}
		*flag.address = address
	}
	return local, nil
}

// newMetricsRegistry returns a registry with what every Go program tells.
func newMetricsRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// runWithHTTP runs a long-lived part, and beside it an HTTP server unless
// address is empty. The server stops after the part has, so that it can be
// watched to the end.
func runWithHTTP(ctx context.Context, run func(context.Context) error, address string, handler http.Handler) error {
	if address == "" {
		return run(ctx)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--http: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	var group errgroup.Group
	group.Go(func() error {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			return fmt.Errorf("serve %s: %w", address, err)
		}
		return nil
	})
	group.Go(func() error {
		defer server.Close()
		return run(ctx)
	})
	return group.Wait()
}
