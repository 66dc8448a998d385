package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/extauthz/trial"
	"github.com/chancery-mesh/chancery/mesh"
)

func newTestCommand() *cobra.Command {
	var output outputFlag
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test DIR",
		Short: "Check that documents decide as they should",
		Long: `Test makes the requests of the Test documents in a directory (files *.test.yaml),
and compares what the other documents there decide about them with what is
expected. It says what each request that ends otherwise was refused or let in for.

Tokens, keys, passwords and Passports are made up for each run. So it needs no
identity provider, no agent and no network, and says nothing about any of those.

Exit codes: 0 when all is as expected; 1 when something is not, or documents are
not valid.`,
		Example: `  chancery test ./mesh
  chancery test ./mesh -o json`,
		Args: cobra.ExactArgs(1),
		RunE: running(func(cmd *cobra.Command, args []string) error {
			verdicts, err := try(cmd, args[0])
			if err != nil {
				return err
			}
			if output == "json" {
				err = writeVerdictsJSON(cmd.OutOrStdout(), verdicts)
			} else {
				err = writeVerdicts(cmd.OutOrStdout(), verdicts, verbose)
			}
			return errors.Join(err, failed(verdicts))
		}),
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show what is as expected, too")
	output.add(cmd)
	return cmd
}

// try makes all requests of a directory.
func try(cmd *cobra.Command, dir string) (verdicts []trial.Verdict, err error) {
	m, tests, err := readTests(cmd.ErrOrStderr(), dir)
	if err != nil {
		return nil, err
	}
	court, err := trial.New(m)
	if err != nil {
		return nil, err
	}
	for _, t := range tests {
		of, err := court.Try(cmd.Context(), t)
		if err != nil {
			return nil, err
		}
		verdicts = append(verdicts, of...)
	}
	return verdicts, nil
}

// readTests reads the documents of a directory, and their tests.
func readTests(stderr io.Writer, dir string) (*mesh.Mesh, []*mesh.Test, error) {
	m, err := readMesh(stderr, dir)
	if err != nil {
		return nil, nil, err
	}
	documents, err := mesh.ReadTests(dir)
	if err != nil {
		return nil, nil, err
	}
	tests, err := documents.CompileTests(m, extauthz.DocumentOptions())
	switch {
	case err != nil:
		return nil, nil, tellFaults(stderr, dir, err)
	case len(tests) == 0:
		return nil, nil, &faultError{
			err:  fmt.Errorf("no tests in %s", dir),
			hint: "write a document of kind Test into a file whose name ends in .test.yaml: docs/testing.md has examples",
		}
	}
	return m, tests, nil
}

func failed(verdicts []trial.Verdict) error {
	n := 0
	for i := range verdicts {
		if len(verdicts[i].Faults) > 0 {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %s not as expected", n, count(len(verdicts), "case"))
}

// writeVerdicts writes for people how cases ended that did not as expected, or
// all.
func writeVerdicts(w io.Writer, verdicts []trial.Verdict, verbose bool) error {
	for i := range verdicts {
		v := &verdicts[i]
		switch {
		case len(v.Faults) > 0:
			if err := writeVerdict(w, v); err != nil {
				return err
			}
		case verbose:
			fmt.Fprintf(w, "ok    %s: %s\n", v.Test.Name, v.Case.Name)
		}
	}
	if failed(verdicts) == nil {
		fmt.Fprintf(w, "%s as expected\n", count(len(verdicts), "case"))
	}
	return nil
}

func writeVerdict(w io.Writer, v *trial.Verdict) error {
	fmt.Fprintf(w, "FAIL  %s: %s: %s\n", v.Case.Position, v.Test.Name, v.Case.Name)
	for _, fault := range v.Faults {
		fmt.Fprintf(w, "      %s\n", fault)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "      %s %s was decided with %d %s, after\n", v.Case.Request.Method, shown(v.Case.Request.Target), v.Record.Status, v.Record.Reason)
	for _, s := range v.Record.Steps() {
		fmt.Fprintf(t, "        %s\t%s\t%s\n", s.What, shown(cmp.Or(s.Subject, "-")), s.Outcome)
	}
	for _, value := range v.Record.Values {
		fmt.Fprintf(t, "        %s\t%s\n", value.Path, shown(value.Text))
	}
	if v.Record.Cause != nil {
		fmt.Fprintf(t, "        cause\t%s\n", shown(v.Record.Cause.Error()))
	}
	return t.Flush()
}

// verdictJSON is a verdict for programs.
type verdictJSON struct {
	Test     string          `json:"test"`
	Case     string          `json:"case"`
	Position string          `json:"position"`
	Passed   bool            `json:"passed"`
	Faults   []string        `json:"faults,omitempty"`
	Decision audit.Explained `json:"decision"`
}

func writeVerdictsJSON(w io.Writer, verdicts []trial.Verdict) error {
	keeper := decisions.New(decisions.Config{})
	all := []verdictJSON{}
	for i := range verdicts {
		v := &verdicts[i]
		e, err := keeper.Explain(v.Record)
		if err != nil {
			return err
		}
		e.Hypothetical = true
		all = append(all, verdictJSON{v.Test.Name, v.Case.Name, v.Case.Position.String(), len(v.Faults) == 0, v.Faults, e})
	}
	return writeJSON(w, all)
}
