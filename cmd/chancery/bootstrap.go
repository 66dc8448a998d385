package main

import (
	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/sidecar"
)

func newBootstrapCommand() *cobra.Command {
	var service, gateway, instance, state string
	cmd := &cobra.Command{
		Use:   "bootstrap (--service NAME | --gateway NAME) --state DIR",
		Short: "Print the configuration that an Envoy beside an agent starts with",
		Long: `Bootstrap prints the YAML for an Envoy that somebody else starts. It names the
sockets in the agent's state directory; everything else comes from the agent.`,
		Example: `  chancery bootstrap --service orders --state /var/lib/chancery/orders > envoy.yaml
  envoy -c envoy.yaml`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			id := identity.ID{Role: identity.RoleService, Name: service}
			if gateway != "" {
				id = identity.ID{Role: identity.RoleGateway, Name: gateway}
			}
			yaml, err := sidecar.Config{Identity: id, Instance: instance, StateDir: state}.Bootstrap()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(yaml)
			return err
		}),
	}
	cmd.Flags().StringVar(&service, "service", "", "the service's name")
	cmd.Flags().StringVar(&gateway, "gateway", "", "the gateway's name")
	cmd.Flags().StringVar(&instance, "instance", "", "name of this instance, for people")
	cmd.Flags().StringVar(&state, "state", "", "the agent's state directory (required)")
	_ = cmd.MarkFlagRequired("state")
	cmd.MarkFlagsOneRequired("service", "gateway")
	cmd.MarkFlagsMutuallyExclusive("service", "gateway")
	return cmd
}
