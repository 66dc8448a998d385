package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/controlplane"
)

func newProxiesCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:   "proxies",
		Short: "Show how each Envoy stands with its configuration",
		Long: `Proxies shows, for each Envoy and type of resource, whether it acknowledged what
there is (ACKED), has not answered yet (PENDING), holds an older state (STALE),
or rejected it (NACKED), and then in Envoy's own words why, and which document
is in quarantine for it: its previous version stays in force until it changes.`,
		Example: `  chancery proxies
  chancery proxies -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			proxies, err := f.client().Proxies(cmd.Context())
			if err != nil {
				return f.unreachable(err)
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), proxies)
			}
			return writeProxies(cmd.OutOrStdout(), proxies)
		}),
	}
	f.add(cmd)
	return cmd
}

// proxyColumns are the types that have a column.
var proxyColumns = []struct{ title, typeURL string }{
	{"CDS", "type.googleapis.com/envoy.config.cluster.v3.Cluster"},
	{"EDS", "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"},
	{"LDS", "type.googleapis.com/envoy.config.listener.v3.Listener"},
	{"RDS", "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"},
	{"POLICY", "type.googleapis.com/chancery.v1.Policy"},
}

func writeProxies(w io.Writer, proxies []controlplane.ProxyStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	header := []string{"PROXY", "INSTANCE", "AGENT", "ENVOY"}
	for _, column := range proxyColumns {
		header = append(header, column.title)
	}
	fmt.Fprintln(t, strings.Join(append(header, "REVISION"), "\t"))
	for _, p := range proxies {
		states := make(map[string]controlplane.State, len(p.Types))
		for _, s := range p.Types {
			states[s.TypeURL] = s.State
		}
		row := []string{p.Name, p.Instance, connected(p.Connected), orElse(p.EnvoyVersion, connected(p.EnvoyConnected))}
		for _, column := range proxyColumns {
			row = append(row, orElse(string(states[column.typeURL]), "-"))
		}
		fmt.Fprintln(t, strings.Join(append(row, orElse(p.Acknowledged, "-")), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range proxies {
		for _, s := range p.Types {
			if s.State == controlplane.StateNACKed {
				writeRejection(w, p, s)
			}
		}
	}
	return nil
}

func writeRejection(w io.Writer, p controlplane.ProxyStatus, s controlplane.TypeStatus) {
	fmt.Fprintf(w, "\n%s %s rejected %s:\n  %s\n", p.Name, p.Instance, strings.Join(s.Rejected, ", "), s.Error)
	if len(s.Documents) > 0 {
		fmt.Fprintf(w, "  in quarantine until it changes: %s\n", strings.Join(s.Documents, ", "))
	}
}

func connected(yes bool) string {
	if yes {
		return "connected"
	}
	return "away"
}
