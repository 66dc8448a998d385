package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/extauthz/provider"
)

func newKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Fetch the keys of identity providers",
	}
	cmd.AddCommand(newKeysRefreshCommand())
	return cmd
}

func newKeysRefreshCommand() *cobra.Command {
	var f adminFlags
	var name string
	cmd := &cobra.Command{
		Use:   "refresh",
		Short: "Fetch the keys of identity providers now",
		Long: `Refresh fetches the keys of all identity providers, or of one, and waits for the
answers. The control plane does so by itself, each provider every refresh of its
document (30s); use it when a key was stolen and must go at once. It fails if a
provider does not answer: what was fetched before stays in use then.`,
		Example: `  chancery keys refresh
  chancery keys refresh --provider staff -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			providers, err := f.client().RefreshKeys(cmd.Context(), name)
			if err != nil {
				return f.fault(err, "chancery status")
			}
			if f.output == "json" {
				err = writeJSON(cmd.OutOrStdout(), providers)
			} else {
				err = writeProviders(cmd.OutOrStdout(), providers)
			}
			if err != nil {
				return err
			}
			return notRefreshed(providers)
		}),
	}
	f.add(cmd)
	cmd.Flags().StringVar(&name, "provider", "", "name of the IdentityProvider (default all)")
	return cmd
}

func writeProviders(w io.Writer, providers []provider.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range providers {
		fmt.Fprintf(t, "provider\t%s\t%s\n", p.Name, providerState(p))
	}
	return t.Flush()
}

// notRefreshed is nil if all providers answered.
func notRefreshed(providers []provider.Status) error {
	failed := 0
	for _, p := range providers {
		if p.Error != "" {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return &faultError{
		err:  fmt.Errorf("the keys of %s could not be fetched", count(failed, "identity provider")),
		hint: "look at what is wrong with them above; keys that were fetched before are still used",
	}
}
