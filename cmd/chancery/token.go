package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Create, list and delete join tokens",
		Long: `With a join token an agent gets its first certificate, as the one service or
gateway that the token names. It can be used until its time to live is over, by
the agent that uses it first, and by no other.`,
	}
	cmd.AddCommand(newTokenCreateCommand(), newTokenListCommand(), newTokenDeleteCommand())
	return cmd
}

// tokenCreateFlags are the flags of "token create".
type tokenCreateFlags struct {
	adminFlags
	workload workloadFlags
	ttl      time.Duration
	out      string
}

func newTokenCreateCommand() *cobra.Command {
	var f tokenCreateFlags
	cmd := &cobra.Command{
		Use:   "create (--service NAME | --gateway NAME)",
		Short: "Create a join token",
		Long: `Create prints a join token for one service or gateway, or writes it to a file of
mode 0600, which replaces what is there. It is shown this once: the control plane
keeps no more than a hash. Bring it to the agent's host in a file, never as an
argument.`,
		Example: `  chancery token create --service orders --out orders.token
  chancery token create --gateway public --ttl 1h --wait 30s --out public.token`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }),
	}
	f.adminFlags.add(cmd)
	f.addWait(cmd)
	f.workload.add(cmd)
	cmd.MarkFlagsOneRequired("service", "gateway")
	cmd.Flags().DurationVar(&f.ttl, "ttl", 10*time.Minute, "how long the token can be used, from 10s to 24h")
	cmd.Flags().StringVar(&f.out, "out", "", "file to write it to (default standard output)")
	return cmd
}

func (f *tokenCreateFlags) run(cmd *cobra.Command) error {
	client, err := f.await(cmd.Context())
	if err != nil {
		return err
	}
	token, err := client.CreateToken(cmd.Context(), f.workload.id(), f.ttl)
	if answer, ok := errors.AsType[*controlplane.AnswerError](err); ok && answer.Status == http.StatusBadRequest {
		return &faultError{err: err, hint: "chancery token create --help"}
	}
	if err != nil {
		return f.fault(err, "chancery status")
	}
	shown := token
	if f.out != "" {
		if err := atomicfile.Write(f.out, []byte(token.Secret+"\n"), 0o600); err != nil {
			err = errors.Join(fmt.Errorf("write token: %w", err), client.DeleteToken(cmd.Context(), token.ID))
			return &faultError{err: err, hint: "choose another file, in a directory that you may write to: --out FILE"}
		}
		shown.Secret = ""
	}
	if f.output == "json" {
		return writeJSON(cmd.OutOrStdout(), shown)
	}
	if f.out == "" {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), token.Secret)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "token %s lets one agent join as %s until %s\n", token.ID, token.Workload, token.Expires.Local().Format(time.DateTime))
	return err
}

func newTokenListCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the join tokens that have not ended, without their secrets",
		Example: `  chancery token list
  chancery token list -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			tokens, err := f.client().Tokens(cmd.Context())
			if err != nil {
				return f.fault(err, "chancery status")
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), tokens)
			}
			return writeTokens(cmd.OutOrStdout(), tokens)
		}),
	}
	f.add(cmd)
	return cmd
}

func writeTokens(w io.Writer, tokens []controlplane.TokenStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TOKEN\tWORKLOAD\tENDS IN\tUSED")
	for _, token := range tokens {
		used := "no"
		if !token.Used.IsZero() {
			used = age(token.Used) + " ago"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", token.ID, token.Workload, until(token.Expires), used)
	}
	return t.Flush()
}

func newTokenDeleteCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:     "delete ID",
		Short:   "Make a join token useless",
		Long:    "Delete makes a join token useless. What an agent got with it before stays: see\nchancery revoke.",
		Example: "  chancery token delete 6f0c2a",
		Args:    cobra.ExactArgs(1),
		RunE: running(func(cmd *cobra.Command, args []string) error {
			if err := f.client().DeleteToken(cmd.Context(), args[0]); err != nil {
				return f.fault(err, "chancery token list")
			}
			return nil
		}),
	}
	f.addRun(cmd)
	return cmd
}

// workloadFlags name a service or a gateway.
type workloadFlags struct{ service, gateway string }

func (f *workloadFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.service, "service", "", "the service's name, as in its document")
	cmd.Flags().StringVar(&f.gateway, "gateway", "", "the gateway's name, as in its document")
	cmd.MarkFlagsMutuallyExclusive("service", "gateway")
}

func (f *workloadFlags) id() identity.ID {
	if f.gateway != "" {
		return identity.ID{Role: identity.RoleGateway, Name: f.gateway}
	}
	return identity.ID{Role: identity.RoleService, Name: f.service}
}
