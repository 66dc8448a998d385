package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/sidecar"
)

func newIdentityCommand() *cobra.Command {
	var state string
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "identity --state DIR",
		Short: "Show what an agent proves its workload's identity with",
		Long: `Identity asks the agent of a state directory for its certificate and its trust
bundle: what they say, when they end, when the certificate is renewed, and
whether Envoy uses them already. It shows no private key.

Exit codes: 0 when there is a certificate that is good and renewed in time; 1
otherwise, as when it is revoked or the control plane refuses it.`,
		Example: `  chancery identity --state /var/lib/chancery/orders
  chancery identity --state /var/lib/chancery/orders -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			id, err := sidecar.FetchIdentity(cmd.Context(), state)
			if err != nil {
				return &faultError{err: err, hint: fmt.Sprintf("is the agent running, and as this user? chancery sidecar --state %s …", state)}
			}
			bad := id.Good(time.Now())
			if output == "json" {
				err = writeJSON(cmd.OutOrStdout(), id)
			} else {
				err = writeIdentity(cmd.OutOrStdout(), id, bad)
			}
			return errors.Join(err, bad)
		}),
	}
	cmd.Flags().StringVar(&state, "state", "", "the agent's state directory (required)")
	_ = cmd.MarkFlagRequired("state")
	output.add(cmd)
	return cmd
}

// writeIdentity writes a table; bad is what is wrong with the certificate.
func writeIdentity(w io.Writer, id sidecar.Identity, bad error) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "workload\t%s\tinstance %s\n", id.Identity, id.Instance)
	if c := id.Certificate; c != nil {
		fmt.Fprintf(t, "spiffe id\t%s\n", c.SPIFFEID)
		fmt.Fprintf(t, "serial\t%s\t%s\n", c.Serial, use(c, bad))
		fmt.Fprintf(t, "authority\t%s\n", c.Authority)
		fmt.Fprintf(t, "expires\t%s\t%s\n", c.Expires.Format(time.RFC3339), remaining(c.Expires))
		if bad == nil && !c.Renews.IsZero() {
			fmt.Fprintf(t, "renews\t%s\t%s\n", c.Renews.Format(time.RFC3339), remaining(c.Renews))
		}
	} else {
		fmt.Fprintln(t, "certificate\tNONE")
	}
	if b := id.Trust; b != nil {
		fmt.Fprintf(t, "trust\t%s, sequence %d\t%s\n", b.TrustDomain, b.Sequence, taken(b))
		for _, root := range b.Roots {
			fmt.Fprintf(t, "root\t%s\texpires %s\n", root.SHA256, root.Expires.Format(time.RFC3339))
		}
		for _, a := range b.Authorities {
			fmt.Fprintf(t, "authority\t%s\t%s\n", a.ID, map[bool]string{true: "TAINTED", false: "trusted"}[a.Tainted])
		}
		fmt.Fprintf(t, "revoked\t%s\n", count(b.Revoked, "certificate"))
	} else {
		fmt.Fprintln(t, "trust\tNONE")
	}
	for _, problem := range id.Problems {
		fmt.Fprintf(t, "problem\t%s\n", problem)
	}
	return t.Flush()
}

// another is what Envoy has where it has not what the agent has.
const another = "Envoy has another one, or none"

// use is how the certificate stands.
func use(c *sidecar.Certificate, bad error) string {
	switch {
	case bad != nil:
		return "NOT GOOD: " + bad.Error()
	case c.EnvoySerial != c.Serial:
		return another
	}
	return "in use"
}

func taken(b *sidecar.TrustBundle) string {
	if b.EnvoySequence != b.Sequence {
		return another
	}
	return "taken by Envoy"
}

func remaining(at time.Time) string {
	if left := time.Until(at); left > 0 {
		return "in " + left.Round(time.Second).String()
	}
	return "PAST"
}
