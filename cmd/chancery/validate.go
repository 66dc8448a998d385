package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/mesh"
)

func newValidateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate DIR",
		Short: "Check a directory of documents, as the control plane does",
		Long: `Validate reads a directory of documents exactly as "chancery serve" does and
reports every fault at once, each with file, line and column.

Exit codes: 0 when the documents are valid, 1 when they are not.`,
		Example: "  chancery validate ./mesh",
		Args:    cobra.ExactArgs(1),
		RunE: running(func(cmd *cobra.Command, args []string) error {
			m, err := readMesh(cmd.ErrOrStderr(), args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "mesh %q is valid: %s, %s, %s\n", m.Name,
				count(len(m.Gateways), "gateway"), count(len(m.Services), "service"), count(len(m.Providers), "identity provider"))
			return nil
		}),
	}
}

// readMesh reads the documents of a directory. What is wrong with them is written
// to stderr.
func readMesh(stderr io.Writer, dir string) (*mesh.Mesh, error) {
	documents, err := mesh.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	m, err := documents.Compile(extauthz.DocumentOptions())
	return m, tellFaults(stderr, dir, err)
}

// tellFaults writes what is wrong with documents, and returns how much that is.
func tellFaults(stderr io.Writer, dir string, err error) error {
	faults, ok := errors.AsType[mesh.Faults](err)
	if !ok {
		return err
	}
	fmt.Fprintln(stderr, faults)
	return fmt.Errorf("%s in the documents of %s", count(len(faults), "fault"), dir)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
