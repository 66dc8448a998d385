package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/controlplane"
)

// revokeFlags are the flags of "revoke".
type revokeFlags struct {
	adminFlags
	workload workloadFlags
	controlplane.Revocation
	lasts time.Duration
}

func newRevokeCommand() *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:   "revoke (--service NAME | --gateway NAME | --serial HEX | --subject ID | --jti ID | --client ID | --tenant ID)",
		Short: "Revoke certificates of workloads, or credentials of users and clients",
		Long: `Revoke ends the trust in all certificates that a service or gateway has, or in
those of one agent: a serial number stands for all certificates that its agent,
or whoever stole one, renewed since it joined. Proxies refuse new connections and
the next request on open ones, the control plane hangs up, and Passports of a
gateway's keys are refused. Only a new attestation, with a new join token say,
brings the workload back; tokens that were used before are gone.

Or it refuses the credentials of a user (--subject), a client or a tenant that
were issued until now, or --before another time, or the one token with an ID
(--jti): those of one identity provider, or all. Every gateway and service
refuses the next request, Passports that were minted for such a credential
included. Who logs in again is let in, once the clock skew of the provider's
document has passed; block them at the provider, or choose a time that is yet to
come. What does not tell when it was issued is refused in any case: API keys,
Basic users and client certificates, if no provider is named. The revocation ends
when no token that it means can be good any more, or after --for; keys, passwords
and certificates are good again then, so take them out of their documents.

It waits up to two seconds for the connected proxies, and says which of them have
not taken it by then. Those that are away take it when they are back.

Exit codes: 0 when it is revoked and all connected proxies have taken it; 1 when
it is not revoked, or not on disk, or they have not.`,
		Example: `  chancery revoke --service orders --reason "host is compromised"
  chancery revoke --serial 5b31c0d2f0a9b7c141e8c6c4d2f0a9b7c1a25a0e
  chancery revoke --subject alice --provider staff --reason "laptop was stolen"
  chancery revoke --client till --before 2027-01-31T12:00:00Z`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }),
	}
	f.add(cmd)
	f.workload.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.Serial, "serial", "", "serial number of a certificate, in hex")
	flags.StringVar(&f.Subject, "subject", "", "a user's ID, as logs and conditions show it")
	flags.StringVar(&f.JTI, "jti", "", "a token's own ID")
	flags.StringVar(&f.Client, "client", "", "a client's ID")
	flags.StringVar(&f.Tenant, "tenant", "", "a tenant's ID")
	flags.StringVar(&f.Provider, "provider", "", "identity provider whose credentials are meant, by the name of its document (default all credentials)")
	flags.StringVar(&f.Issuer, "issuer", "", "the same, by its issuer")
	flags.TimeVar(&f.Before, "before", time.Time{}, []string{time.RFC3339}, "last time of issue that is meant, such as 2027-01-31T12:00:00Z (default now)")
	flags.DurationVar(&f.lasts, "for", 0, "how long credentials are refused (default until none can be good)")
	flags.StringVar(&f.Reason, "reason", "", "why, for the ledger and the audit log")
	what := []string{"service", "gateway", "serial", "subject", "jti", "client", "tenant"}
	cmd.MarkFlagsOneRequired(what...)
	cmd.MarkFlagsMutuallyExclusive(what...)
	cmd.MarkFlagsMutuallyExclusive("provider", "issuer")
	cmd.AddCommand(newRevokeListCommand(), newRevokeUndoCommand())
	return cmd
}

func (f *revokeFlags) run(cmd *cobra.Command) error {
	f.Service, f.Gateway = f.workload.service, f.workload.gateway
	if cmd.Flags().Changed("for") {
		f.For = f.lasts.String()
	}
	status, err := f.client().Revoke(cmd.Context(), f.Revocation)
	answer, answered := errors.AsType[*controlplane.AnswerError](err)
	switch {
	case answered && answer.Status == http.StatusBadRequest:
		return &faultError{err: err, hint: "chancery revoke --help"}
	case err != nil && f.Provider+f.Issuer != "":
		return f.fault(err, "chancery status")
	case err != nil:
		return f.fault(err, "chancery proxies")
	}
	return f.show(cmd, status, revoked)
}

// What was done.
const (
	revoked = "revoked"
	undone  = "undone"
)

// show writes what a revocation came to, or that it was undone, and says what
// is wrong with it.
func (f *adminFlags) show(cmd *cobra.Command, status controlplane.RevocationStatus, done string) error {
	var err error
	if f.output == "json" {
		err = writeJSON(cmd.OutOrStdout(), status)
	} else {
		err = writeRevocation(cmd.OutOrStdout(), status, done)
	}
	switch {
	case err != nil:
		return err
	case status.Unsaved != "":
		return &faultError{err: fmt.Errorf("%s, but not on disk, and a restart would forget it: %s; when the control plane can write again, do it again", done, status.Unsaved), hint: f.command("chancery status")}
	case len(status.Waiting) > 0:
		return &faultError{
			err:  fmt.Errorf("%s, but %s not taken it yet", done, have(len(status.Waiting))),
			hint: f.command("chancery proxies"),
		}
	}
	return nil
}

func writeRevocation(w io.Writer, s controlplane.RevocationStatus, done string) error {
	var b strings.Builder
	for _, c := range s.Certificates {
		fmt.Fprintf(&b, "%s %s %s, which would have ended in %s\n", done, c.Name, c.Serial, until(c.Expires))
	}
	if s.Credentials != nil {
		fmt.Fprintf(&b, "%s %s: %s\n", done, s.Credentials.ID, meant(*s.Credentials))
		if done == revoked {
			b.WriteString(lasting(*s.Credentials))
		}
	} else if len(s.Certificates) == 0 {
		fmt.Fprintln(&b, "there was no certificate to revoke")
	}
	fmt.Fprintf(&b, "%d of %s taken it\n", s.Acknowledged, have(s.Proxies))
	for _, p := range s.Waiting {
		fmt.Fprintf(&b, "  not yet: %s\n", p)
	}
	for _, p := range s.Away {
		fmt.Fprintf(&b, "  away: %s\n", p)
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
