package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/controlplane"
)

func newCACommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Show and rotate the certificate authority",
		Long: `The authority that signs workloads' certificates is replaced in four steps, of
which each waits until it is safe:

  prepare   makes the next one, which all proxies trust from then on
  activate  has it sign, once all proxies trust it
  taint     has everybody renew whose certificate is of the old one
  revoke    ends the trust in the old one, once nobody uses it and connections
            that began with its certificates have ended

The control plane does this by itself: it begins at half of an authority's life,
and activates the next one at 5/6 of it even if proxies are missing, which is
loud. The commands do the same steps earlier. What you begin before half of the
old authority's life stays as you leave it until then; from then on the control
plane does what is left.`,
	}
	cmd.AddCommand(
		newCAShowCommand(),
		newCABundleCommand(),
		newCAPrepareCommand(),
		newCAStepCommand(controlplane.StepActivate, "Have the prepared authority sign", `Activate has the prepared authority sign. It is refused as long as a proxy that
has a certificate does not trust it yet. The authority need not be named when
there is only one that it can be.`),
		newCAStepCommand(controlplane.StepTaint, "Have everybody renew who has a certificate of the old authority", `Taint has everybody renew at once who has a certificate of the old authority. It
is refused as long as a proxy that has a certificate does not trust the new one.
The authority need not be named when there is only one that it can be.`),
		newCAStepCommand(controlplane.StepRevoke, "End the trust in a tainted authority", `Revoke ends the trust in a tainted authority, and in all that it signed, or in one
that was prepared for nothing. It is refused as long as a proxy uses a certificate
of it. The authority need not be named when only one is tainted.`),
	)
	return cmd
}

func newCAShowCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show roots and authorities, what is next for them, and who is waited for",
		Example: `  chancery ca show
  chancery ca show -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			return f.showAuthority(cmd, f.client().Authority)
		}),
	}
	f.add(cmd)
	return cmd
}

func newCABundleCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:     "bundle",
		Short:   "Write the roots in PEM, for --trust-bundle of agents",
		Example: `  chancery ca bundle > mesh.pem`,
		Args:    cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			client, err := f.await(cmd.Context())
			if err != nil {
				return err
			}
			authority, err := client.Authority(cmd.Context())
			if err != nil {
				return f.fault(err, "chancery status")
			}
			for _, root := range authority.Roots {
				fmt.Fprint(cmd.OutOrStdout(), root.Certificate)
			}
			return nil
		}),
	}
	f.addRun(cmd)
	f.addWait(cmd)
	return cmd
}

func newCAPrepareCommand() *cobra.Command {
	var f adminFlags
	var newRoot bool
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Make the next authority, which proxies trust from then on",
		Long: `Prepare makes the next authority. It signs nothing before it is activated. A new
root is made when the one there is would end before the authority, or when asked
for.`,
		Example: `  chancery ca prepare
  chancery ca prepare --new-root`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			return f.showAuthority(cmd, func(ctx context.Context) (controlplane.AuthorityStatus, error) {
				return f.client().PrepareAuthority(ctx, newRoot)
			})
		}),
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&newRoot, "new-root", false, "make a new root, too")
	return cmd
}

func newCAStepCommand(step controlplane.Step, short, long string) *cobra.Command {
	var f adminFlags
	var force bool
	cmd := &cobra.Command{
		Use:   string(step) + " [AUTHORITY]",
		Short: short,
		Long:  long,
		Example: fmt.Sprintf("  chancery ca %[1]s\n  chancery ca %[1]s --force 41e8c6c4d2f0a9b7c1a25a0e3d5f7b9911aa22bb",
			step),
		Args: cobra.MaximumNArgs(1),
		RunE: running(func(cmd *cobra.Command, args []string) error {
			return f.showAuthority(cmd, func(ctx context.Context) (controlplane.AuthorityStatus, error) {
				return f.client().StepAuthority(ctx, step, strings.Join(args, ""), force)
			})
		}),
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "do not wait for proxies, though their connections may be refused")
	return cmd
}

// showAuthority does something and shows the authority after it.
func (f *adminFlags) showAuthority(cmd *cobra.Command, do func(context.Context) (controlplane.AuthorityStatus, error)) error {
	status, err := do(cmd.Context())
	if waiting, ok := errors.AsType[*controlplane.WaitingError](err); ok {
		writeWaiting(cmd.ErrOrStderr(), waiting.Step)
		return &faultError{err: err, hint: f.waitOrNot(waiting.Step)}
	}
	if err != nil {
		return f.fault(err, "chancery ca show")
	}
	if f.output == "json" {
		return writeJSON(cmd.OutOrStdout(), status)
	}
	return writeAuthority(cmd.OutOrStdout(), status)
}

// waitOrNot says what there is to do about a step that waits.
func (f *adminFlags) waitOrNot(step controlplane.StepStatus) string {
	hint := "wait for them"
	if i := slices.IndexFunc(step.Waiting, func(p controlplane.WaitingProxy) bool { return p.Away }); i >= 0 {
		hint += "; if " + step.Waiting[i].Name + " is gone for good: " + f.command("chancery revoke --serial "+step.Waiting[i].Serial)
	}
	return hint + "; or go on without: " + f.command(fmt.Sprintf("chancery ca %s %s --force", step.Step, step.Authority))
}

func writeAuthority(w io.Writer, s controlplane.AuthorityStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "trust\tspiffe://%s, sequence %d, %s\n", s.TrustDomain, s.Sequence, certificates(s))
	for _, root := range s.Roots {
		fmt.Fprintf(t, "root\t%s\tends in %s\n", root.Fingerprint, until(root.Expires))
	}
	for _, a := range s.Issuers {
		fmt.Fprintf(t, "authority\t%s\t%s for %s, ends in %s, %s\n",
			a.ID, a.State, age(a.Since), until(a.Expires), count(a.Certificates, "certificate"))
	}
	for _, step := range s.Next {
		fmt.Fprintf(t, "next\t%s %s\t%s\n", step.Step, step.Authority, when(step))
		writeProblem(t, step)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, step := range s.Next {
		writeWaiting(w, step)
	}
	return nil
}

// writeProblem says why a step could not be taken, if so.
func writeProblem(w io.Writer, step controlplane.StepStatus) {
	if problem := step.Problem(); problem != "" {
		fmt.Fprintf(w, "problem\t%s\n\t%s\n", problem, step.Mend())
	}
}

// certificates says how many there are.
func certificates(s controlplane.AuthorityStatus) string {
	text := count(s.Certificates, "certificate")
	if s.Revoked > 0 {
		text += fmt.Sprintf(", %d REVOKED", s.Revoked)
	}
	return text
}

// when says when a step is taken, and what it waits for.
func when(step controlplane.StepStatus) string {
	var parts []string
	if d := time.Until(step.Due); d > 0 {
		parts = append(parts, "in "+round(d))
	}
	if n := len(step.Waiting); n > 0 {
		parts = append(parts, "waits for "+proxyCount(n))
	}
	if !step.Forced.IsZero() {
		parts = append(parts, fmt.Sprintf("by force in %s", until(step.Forced)))
	}
	return orElse(strings.Join(parts, ", "), "now")
}

// maxWaiting bounds the lines about proxies that are waited for.
const maxWaiting = 20

func writeWaiting(w io.Writer, step controlplane.StepStatus) {
	for _, p := range step.Waiting[:min(len(step.Waiting), maxWaiting)] {
		fmt.Fprintf(w, "  %s waits for %s\n", step.Step, p)
	}
	if more := len(step.Waiting) - maxWaiting; more > 0 {
		fmt.Fprintf(w, "  and for %d more: chancery ca show -o json\n", more)
	}
}
