package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/extauthz/endpoint"
)

// authzFlags are the flags of the decision point alone.
type authzFlags struct {
	listen, socketMode, http, state string
	anybody                         bool
	drain                           time.Duration
	documents                       documentsFlags
	rego                            regoFlags
	required                        bool
	decisionLogFlags
	logFlags
}

func newAuthzCommand() *cobra.Command {
	var f authzFlags
	cmd := &cobra.Command{
		Use:   "authz --documents DIR | --rego DIR|FILE | --bundle FILE|URL",
		Short: "Run the decision point alone, for an Envoy that somebody else configures",
		Long: `Authz runs Envoy's external authorization service (ext_authz) without a control
plane: for an Envoy with a configuration of its own, for Istio as a CUSTOM
provider, for Envoy Gateway as extAuth.

With --documents it decides by the routes of a Gateway document: the first whose
method and path a request matches. What that document says of listeners and limits
is for whoever configures Envoy. Documents that change count as soon as they are
valid; the keys of identity providers are fetched here. With --passport-key,
requests go on with a Passport in place of their credentials, and its public key
is at /passport-keys of --http. Without, they go on as they came.

With --rego or --bundle it decides by policies that were written for the OPA-Envoy
plugin, unchanged unless they call http.send, opa.runtime or another function that
reaches out of the process: the same input, the same forms of decisions; see
docs/rego.md for what is different. A directory holds modules and data. A bundle is
one of OPA's; with --bundle-key it must be signed by one of those keys, and none is
followed by an older one. What is wrong with a change is logged, and the last good
policy stays.

Whoever can connect can ask for decisions about requests that nobody made, and so
for Passports. So it listens on loopback or a Unix socket, unless
--listen-to-anybody says otherwise.`,
		Example: `  chancery authz --documents ./mesh --listen 127.0.0.1:9191 --http 127.0.0.1:9192
  chancery authz --documents ./mesh --gateway public --listen unix:/run/chancery/authz.sock
  chancery authz --rego ./policy --query data.envoy.authz.allow
  chancery authz --bundle https://bundles.shop.example/shop.tar.gz --bundle-key bundle.pem --state /var/lib/chancery/authz`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:9191", `where Envoy asks: an IP address and a port, or "unix:" and a path`)
	flags.BoolVar(&f.anybody, "listen-to-anybody", false, "listen on addresses other than loopback, too. Let nobody but Envoy connect there")
	flags.StringVar(&f.socketMode, "socket-mode", "0600", "mode of the socket; 0660 to share it with its group")
	flags.StringVar(&f.http, "http", "", "address of /healthz, /readyz and /metrics (default none)")
	flags.StringVar(&f.state, "state", "", "directory for what outlives a restart there: the last good keys of identity providers, the last good bundle (default nothing does)")
	flags.DurationVar(&f.drain, "drain-time", 5*time.Second, "longest wait for checks under way at shutdown")
	f.documents.add(cmd)
	f.rego.add(cmd)
	f.decisionLogFlags.add(cmd)
	flags.BoolVar(&f.required, "decision-log-required", false, "with --rego or --bundle: answer nothing that is not recorded on disk, but for a 503; documents say so themselves")
	f.logFlags.add(cmd)
	cmd.MarkFlagsOneRequired("documents", "rego", "bundle")
	cmd.MarkFlagsMutuallyExclusive("documents", "rego", "bundle")
	for _, name := range []string{"gateway", "passport-key", "secrets"} {
		cmd.MarkFlagsMutuallyExclusive("rego", name)
		cmd.MarkFlagsMutuallyExclusive("bundle", name)
	}
	// What means nothing is refused: a key of bundles would pass for a signature.
	for _, name := range []string{"bundle-key", "bundle-scope", "bundle-token-file", "bundle-poll"} {
		cmd.MarkFlagsMutuallyExclusive("rego", name)
		cmd.MarkFlagsMutuallyExclusive("documents", name)
	}
	for _, name := range []string{
		"decision-log-required", "query", "v0-compatible", "timeout", "skip-request-body-parse", "proto-descriptor", "allow-ambiguous-paths", "status-on-error",
	} {
		cmd.MarkFlagsMutuallyExclusive("documents", name)
	}
	return cmd
}

func (f *authzFlags) run(cmd *cobra.Command) error {
	logger, err := f.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	mode, err := strconv.ParseUint(f.socketMode, 8, 32)
	if err != nil {
		return fmt.Errorf("--socket-mode %q: write an octal number such as 0660", f.socketMode)
	}
	if err := makeStateDir(f.state); err != nil {
		return err
	}
	metrics := newMetricsRegistry()
	kept, err := f.keep(f.state, logger, metrics)
	if err != nil {
		return err
	}
	source, suppose, err := f.open(kept, logger, metrics)
	if err != nil {
		return err
	}
	server, err := endpoint.New(endpoint.Config{
		Listen: f.listen, AnyAddress: f.anybody, SocketMode: fs.FileMode(mode),
		Source: source, Drain: f.drain, Logger: logger, Gatherer: metrics,
	})
	if errors.Is(err, endpoint.ErrExposed) {
		return &faultError{err: err, hint: "listen on loopback or a Unix socket, or say --listen-to-anybody and let only Envoy connect"}
	}
	if err != nil {
		return err
	}
	extauthz.SpareGC()
	run := func(ctx context.Context) error { return kept.serve(ctx, f.state, suppose, server.Run) }
	return runWithHTTP(cmd.Context(), run, f.http, server.Handler())
}

// open opens what decides, also about requests that have not happened.
func (f *authzFlags) open(kept *keptDecisions, logger *slog.Logger, metrics prometheus.Registerer) (endpoint.Source, decisions.Supposer, error) {
	if f.documents.dir != "" {
		source, err := f.documents.open(f.state, kept, logger, metrics)
		return source, kept.Supposing(source.Server), err
	}
	var how extauthz.Recording
	if f.required {
		how.Mode = audit.Required
	}
	record := func(e *audit.Explained) error { return kept.RecordAs(e, how) }
	source, err := f.rego.open(f.state, record, logger, metrics)
	suppose := func(ctx context.Context, h *extauthz.Hypothesis) (audit.Explained, error) {
		e := source.Explain(ctx, h.Plain(), h.Time)
		return *e, kept.Redact(e, how.Redaction)
	}
	return source, suppose, err
}
