package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/mesh"
)

func newSchemaCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the documents' JSON Schema, for editors, or their reference",
		Example: `  chancery schema > chancery.schema.json
  chancery schema --format markdown > documents.md`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out []byte
			switch format {
			case "json":
				out = mesh.Schema()
			case "markdown":
				out = mesh.Reference()
			default:
				return fmt.Errorf("--format %q: write json or markdown", format)
			}
			_, err := cmd.OutOrStdout().Write(out)
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "json", "json or markdown")
	return cmd
}
