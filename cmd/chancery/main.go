// Command chancery secures services on Consul and Envoy: the control plane,
// the agents beside Envoys, and the tools for those who run them. This package
// holds flags, wiring, exit codes and output, and no logic.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run executes one command line and returns the exit code: 0, 1 for a fault
// while running, 2 for a command line that is wrong.
func run(args []string, stdout, stderr io.Writer) int {
	// SIGHUP is what a closing terminal sends: it ends us in order, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "chancery: error: %v\n", err)
	if fault, ok := errors.AsType[*faultError](err); ok {
		if fault.hint != "" {
			fmt.Fprintf(stderr, "chancery: hint: %s\n", fault.hint)
		}
		return 1
	}
	fmt.Fprintf(stderr, "chancery: hint: %s --help\n", cmd.CommandPath())
	return 2
}

// faultError is a fault while running, as opposed to a wrong command line,
// with a command to copy where we know the way out.
type faultError struct {
	err  error
	hint string
}

func (e *faultError) Error() string { return e.err.Error() }
func (e *faultError) Unwrap() error { return e.err }

// running marks the errors of a command's body as faults.
func running(body func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := body(cmd, args)
		var fault *faultError
		if err == nil || errors.As(err, &fault) {
			return err
		}
		return &faultError{err: err}
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "chancery",
		Short: "Secure services on Consul and Envoy",
		Long: `Chancery configures stock Envoy gateways and sidecars from what Consul says is
alive, decides every request beside the Envoy that asks, and gives each request
a signed, short-lived Passport that every hop verifies.

Each flag can also be set in the environment: --state is CHANCERY_STATE.`,
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: flagsFromEnvironment,
	}
	root.AddCommand(
		newServeCommand(),
		newSidecarCommand(),
		newGatewayCommand(),
		newAuthzCommand(),
		newBootstrapCommand(),
		newValidateCommand(),
		newTestCommand(),
		newStatusCommand(),
		newExplainCommand(),
		newProxiesCommand(),
		newKeysCommand(),
		newTokenCommand(),
		newCACommand(),
		newRevokeCommand(),
		newDoctorCommand(),
		newIdentityCommand(),
		newHealthCommand(),
		newPassportCommand(),
		newAPIKeyCommand(),
		newPasswordCommand(),
		newSchemaCommand(),
	)
	return root
}
