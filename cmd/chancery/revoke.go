package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/controlplane"
)

func newRevokeCommand() *cobra.Command {
	var f adminFlags
	var workload workloadFlags
	var r controlplane.Revocation
	cmd := &cobra.Command{
		Use:   "revoke (--service NAME | --gateway NAME | --serial HEX)",
		Short: "Revoke certificates",
		Long: `Revoke ends the trust in all certificates that a service or gateway has, or in
those of one agent: a serial number stands for all certificates that its agent,
or whoever stole one, renewed since it joined. Proxies refuse new connections and
the next request on open ones, the control plane hangs up, and Passports of a
gateway's keys are refused. Only a new attestation, with a new join token say,
brings the workload back; tokens that were used before are gone.

It waits up to two seconds for the connected proxies, and says which of them have
not taken it by then. Those that are away take it when they are back.

Exit codes: 0 when it is revoked and all connected proxies have taken it; 1 when
it is not revoked, or not on disk, or they have not.`,
		Example: `  chancery revoke --service orders --reason "host is compromised"
  chancery revoke --serial 5b31c0d2f0a9b7c141e8c6c4d2f0a9b7c1a25a0e`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			r.Service, r.Gateway = workload.service, workload.gateway
			status, err := f.client().Revoke(cmd.Context(), r)
			if err != nil {
				return f.fault(err, "chancery proxies")
			}
			if f.output == "json" {
				err = writeJSON(cmd.OutOrStdout(), status)
			} else {
				err = writeRevocation(cmd.OutOrStdout(), status)
			}
			if err == nil && status.Unsaved != "" {
				return &faultError{err: fmt.Errorf("revoked, but not on disk, and a restart would forget it: %s; when the control plane can write again, revoke again", status.Unsaved), hint: f.command("chancery status")}
			}
			if err == nil && len(status.Waiting) > 0 {
				err = &faultError{
					err:  fmt.Errorf("revoked, but %s not taken it yet", have(len(status.Waiting))),
					hint: f.command("chancery proxies"),
				}
			}
			return err
		}),
	}
	f.add(cmd)
	workload.add(cmd)
	cmd.Flags().StringVar(&r.Serial, "serial", "", "serial number of a certificate, in hex")
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why, for the ledger and the audit log")
	cmd.MarkFlagsOneRequired("service", "gateway", "serial")
	cmd.MarkFlagsMutuallyExclusive("service", "gateway", "serial")
	return cmd
}

func writeRevocation(w io.Writer, s controlplane.RevocationStatus) error {
	var b strings.Builder
	for _, c := range s.Certificates {
		fmt.Fprintf(&b, "revoked %s %s, which would have ended in %s\n", c.Name, c.Serial, until(c.Expires))
	}
	if len(s.Certificates) == 0 {
		fmt.Fprintln(&b, "there was no certificate to revoke")
	}
	fmt.Fprintf(&b, "%d of %s taken it\n", s.Acknowledged, have(s.Proxies))
	for _, p := range s.Waiting {
		fmt.Fprintf(&b, "  not yet: %s\n", p)
	}
	if len(s.Tokens) > 0 {
		fmt.Fprintf(&b, "%s could bring it back; to prevent that:\n", unused(len(s.Tokens)))
	}
	for _, token := range s.Tokens {
		fmt.Fprintf(&b, "  chancery token delete %s\n", token)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// have is "1 proxy has" or "2 proxies have".
func have(proxies int) string {
	if proxies == 1 {
		return "1 proxy has"
	}
	return proxyCount(proxies) + " have"
}

func unused(tokens int) string {
	if tokens == 1 {
		return "a join token that nobody has used"
	}
	return fmt.Sprintf("%d join tokens that nobody has used", tokens)
}

// proxyCount is "1 proxy" or "2 proxies".
func proxyCount(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return fmt.Sprintf("%d proxies", n)
}
