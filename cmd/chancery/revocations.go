package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/controlplane"
)

func newRevokeListCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the credentials that are refused",
		Long: `List shows the revocations of credentials that have not ended, the oldest first.
Those of certificates are in the ledger: see chancery ca show.`,
		Example: `  chancery revoke list
  chancery revoke list -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			list, err := f.client().Revocations(cmd.Context())
			if err != nil {
				return f.fault(err, "chancery status")
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), list)
			}
			return writeRevocations(cmd.OutOrStdout(), list)
		}),
	}
	f.add(cmd)
	return cmd
}

func writeRevocations(w io.Writer, list []controlplane.CredentialRevocation) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REVOCATION\tCREDENTIALS\tREVOKED\tBY\tENDS IN\tREASON")
	for _, r := range list {
		fmt.Fprintf(t, "%s\t%s\t%s ago\t%s\t%s\t%s\n", r.ID, meant(r), age(r.Revoked), r.By, until(r.Expires), orElse(r.Reason, "-"))
	}
	return t.Flush()
}

// meant says which credentials a revocation means.
func meant(r controlplane.CredentialRevocation) string {
	return fmt.Sprintf("%s, issued until %s", r, r.Before.Format(time.RFC3339))
}

// lasting says for how long, and what that does not end.
func lasting(r controlplane.CredentialRevocation) string {
	text := "it ends in " + until(r.Expires)
	if r.Issuer == "" {
		text += "; until then, API keys, Basic users and client certificates are refused as well, which do not end by themselves: see their documents"
	}
	return text + "\n"
}

func newRevokeUndoCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:   "undo ID",
		Short: "Let credentials in again that were revoked",
		Long: `Undo takes back a revocation of credentials, and waits for the proxies as revoke
does. What they are good for again, they are at once. Certificates stay revoked:
their workloads attest again.`,
		Example: "  chancery revoke undo 3c59dc048e885024",
		Args:    cobra.ExactArgs(1),
		RunE: running(func(cmd *cobra.Command, args []string) error {
			status, err := f.client().UndoRevocation(cmd.Context(), args[0])
			if err != nil {
				return f.fault(err, "chancery revoke list")
			}
			return f.show(cmd, status, undone)
		}),
	}
	f.add(cmd)
	return cmd
}
