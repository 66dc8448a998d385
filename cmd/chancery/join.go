package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/sidecar"
)

// joinFlags say how an agent proves which workload it is, and knows the control
// plane, as long as it has no certificate.
type joinFlags struct {
	attest, tokenFile, trustBundle, consulServiceID string
}

func (f *joinFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.tokenFile, "join-token-file", "", `file of mode 0600 with a join token, or "-" for standard input; looked at when there is no certificate that is good`)
	flags.StringVar(&f.trustBundle, "trust-bundle", "", "PEM file with the roots to know the control plane by (default those that the join token names)")
}

// addConsul is for services, which Consul knows.
func (f *joinFlags) addConsul(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.attest, "attest", "token", "how to prove the workload's identity without a certificate: token or consul")
	flags.StringVar(&f.consulServiceID, "consul-service-id", "", "ID of this instance's registration, for --attest consul")
}

// maxTokenInput is more than any join token has.
const maxTokenInput = 4 << 10

func (f *joinFlags) join(cmd *cobra.Command) (sidecar.Join, error) {
	join := sidecar.Join{TokenFile: f.tokenFile, TrustBundle: f.trustBundle}
	switch f.attest {
	case "token":
		if f.tokenFile == "-" {
			text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxTokenInput))
			if err != nil {
				return join, fmt.Errorf("--join-token-file -: %w", err)
			}
			join.TokenFile, join.Token = "", string(text)
		}
		return join, nil
	case "consul":
		return f.joinConsul(join)
	}
	return join, fmt.Errorf("--attest %q: write token or consul", f.attest)
}

// joinConsul finds Consul by its usual environment.
func (f *joinFlags) joinConsul(join sidecar.Join) (sidecar.Join, error) {
	switch {
	case f.consulServiceID == "":
		return join, errors.New("--attest consul needs --consul-service-id, the ID of this instance's registration")
	case f.tokenFile != "":
		return join, errors.New("--attest consul does not go with --join-token-file: choose one")
	}
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return join, fmt.Errorf("--attest consul: %w", err)
	}
	join.Consul = &sidecar.ConsulProof{Client: client, ServiceID: f.consulServiceID}
	return join, nil
}
