package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

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
is in quarantine for it: its previous version stays in force until it changes.

It shows as well when the certificate that agent and Envoy use ends and is
renewed, how the authority stands that signed it, and how far the agent's clock
is from the control plane's; below the table, what is wrong with any of these,
and for which documents no agent is connected.`,
		Example: `  chancery proxies
  chancery proxies -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			proxies, err := f.client().Proxies(cmd.Context())
			if err != nil {
				return f.fault(err, "chancery status")
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), proxies)
			}
			status, err := f.client().Status(cmd.Context())
			if err != nil {
				return f.fault(err, "chancery status")
			}
			return errors.Join(writeProxies(cmd.OutOrStdout(), proxies), writeAbsent(cmd.OutOrStdout(), status))
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
	fmt.Fprintln(t, strings.Join(append(header, "ENDS", "RENEWS", "AUTHORITY", "CLOCK", "REVISION"), "\t"))
	for _, p := range proxies {
		states := make(map[string]controlplane.State, len(p.Types))
		for _, s := range p.Types {
			states[s.TypeURL] = s.State
		}
		row := []string{p.Name, p.Instance, connected(p.Connected), orElse(p.EnvoyVersion, connected(p.EnvoyConnected))}
		for _, column := range proxyColumns {
			row = append(row, orElse(string(states[column.typeURL]), "-"))
		}
		row = append(row, certificateColumns(p.Certificate)...)
		row = append(row, clock(p), orElse(p.Acknowledged, "-"))
		fmt.Fprintln(t, strings.Join(row, "\t"))
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
		for _, problem := range p.Problems {
			fmt.Fprintf(w, "\n%s %s: %s\n", p.Name, p.Instance, problem)
		}
	}
	return nil
}

// writeAbsent names the documents that no agent is connected for.
func writeAbsent(w io.Writer, status controlplane.Status) error {
	var absent []string
	for _, v := range status.Views {
		if v.Streams == 0 {
			absent = append(absent, v.Name)
		}
	}
	if len(absent) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nno agent is connected for %s\n", strings.Join(absent, ", "))
	return err
}

// certificateColumns are its end, its renewal and its authority.
func certificateColumns(c *controlplane.CertificateStatus) []string {
	if c == nil {
		return []string{"-", "-", "-"}
	}
	ends := until(c.Expires)
	switch {
	case !c.Revoked.IsZero():
		ends = "REVOKED"
	case !c.Expires.After(time.Now()):
		ends = "ENDED"
	}
	return []string{ends, until(c.Renews), orElse(c.AuthorityState, "NOT TRUSTED")}
}

// clock is how far the agent's is from the control plane's.
func clock(p controlplane.ProxyStatus) string {
	if p.Certificate == nil {
		return "-"
	}
	return fmt.Sprintf("%+.1fs", p.ClockAhead)
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
