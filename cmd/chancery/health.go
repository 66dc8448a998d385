package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// healthTimeout is less than what container runtimes usually wait.
const healthTimeout = 2 * time.Second

func newHealthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health URL",
		Short: "Ask a process whether it is well, for containers without shell and curl",
		Long: `Health asks the /healthz or /readyz of a process that runs with --http.

Exit codes: 0 when it answers that it is well, 1 when it does not.`,
		Example: "  chancery health http://127.0.0.1:9902/readyz",
		Args:    cobra.ExactArgs(1),
		RunE:    running(func(cmd *cobra.Command, args []string) error { return health(cmd.Context(), args[0]) }),
	}
}

func health(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	return nil
}
