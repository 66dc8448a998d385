package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz/opaenvoy"
	"github.com/chancery-mesh/chancery/extauthz/policy/bundle"
	"github.com/chancery-mesh/chancery/extauthz/policy/rego"
)

// regoFlags are those of decisions by policies in Rego.
type regoFlags struct {
	path, bundle, query string
	keys                []string
	scope, token        string
	poll                time.Duration
	v0                  bool
	timeout             time.Duration
	input               opaenvoy.InputOptions
	protos              string
	statusOnError       int
}

func (f *regoFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.path, "rego", "", "a .rego file, or a directory of modules and data")
	flags.StringVar(&f.bundle, "bundle", "", "file or URL of an OPA bundle")
	flags.StringVar(&f.query, "query", "data.envoy.authz.allow", "name of the rule that decides")
	flags.StringSliceVar(&f.keys, "bundle-key", nil, "public key (PEM) that bundles must be signed by; several while one replaces another")
	flags.StringVar(&f.scope, "bundle-scope", "", "scope that the bundle's signature must have (default none)")
	flags.StringVar(&f.token, "bundle-token-file", "", "file of the bearer token for the bundle's server")
	flags.DurationVar(&f.poll, "bundle-poll", 30*time.Second, "how often the bundle's server is asked")
	flags.BoolVar(&f.v0, "v0-compatible", false, `read modules as Rego v0, unless they import rego.v1 or their bundle says otherwise`)
	flags.DurationVar(&f.timeout, "timeout", 100*time.Millisecond, "longest time for a decision in Rego")
	flags.BoolVar(&f.input.SkipBody, "skip-request-body-parse", false, "leave out input.parsed_body and input.truncated_body")
	flags.StringVar(&f.protos, "proto-descriptor", "", "file of descriptors (protoc --include_imports --descriptor_set_out), to read the bodies of gRPC calls")
	flags.BoolVar(&f.input.AmbiguousPaths, "allow-ambiguous-paths", false, "let the policy judge paths that servers read in different ways, rather than refuse them (400)")
	flags.IntVar(&f.statusOnError, "status-on-error", 403, "status of the answer where the policy comes to no decision")
}

// fromRego are decisions by policies.
type fromRego struct {
	*opaenvoy.Server
	run func(context.Context) error
}

// Run implements [endpoint.Source].
func (d fromRego) Run(ctx context.Context) error { return d.run(ctx) }

// Handle implements [endpoint.Source].
func (fromRego) Handle(*http.ServeMux) {}

func (f *regoFlags) open(state string, record func(*audit.Explained) error, logger *slog.Logger, metrics prometheus.Registerer) (d fromRego, err error) {
	input := f.input
	if f.protos != "" {
		if input.Protos, err = opaenvoy.ReadProtos(f.protos); err != nil {
			return d, err
		}
	}
	server, err := opaenvoy.New(opaenvoy.Config{
		Input: input, StatusOnError: f.statusOnError, Logger: logger, Registerer: metrics, Record: record,
	})
	if err != nil {
		return d, err
	}
	loader, err := rego.NewLoader(rego.LoaderConfig{
		Query: f.query, Options: rego.Options{Timeout: f.timeout}, Use: server.SetQuery, Logger: logger, Registerer: metrics,
	})
	if err != nil {
		return d, err
	}
	version := rego.Version(f.v0)
	if f.path != "" {
		return fromRego{server, func(ctx context.Context) error { return loader.Watch(ctx, f.path, version) }}, nil
	}
	keys, err := bundle.ReadKeys(f.keys)
	if err != nil {
		return d, err
	}
	watcher, err := bundle.NewWatcher(bundle.Config{
		Location: f.bundle, Options: bundle.Options{Keys: keys, Scope: f.scope, RegoVersion: version}, Loader: loader,
		StateDir: state, Poll: f.poll, TokenFile: f.token, Logger: logger, Registerer: metrics,
	})
	if err != nil {
		return d, err
	}
	return fromRego{server, watcher.Run}, nil
}
