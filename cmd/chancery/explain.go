package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/sidecar"
)

func newExplainCommand() *cobra.Command {
	var state string
	var last uint16
	var all bool
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "explain --state DIR [ID]",
		Short: "Show why a request was let in or not",
		Long: `Explain asks an agent how it came to a decision: which credentials it found, what
it looked at in which order, and which rule decided by which values. A client
that was refused knows the decision's ID from the answer ("decision"); it is in
the decision log, and in Envoy's dynamic metadata, too.

Without an ID it lists the last denials. An agent remembers some thousand
decisions, and forgets them when it ends. What they tell of people is as the
documents say ("decisions: {redact: …}"), and they hold no token, key or password.`,
		Example: `  chancery explain --state /var/lib/chancery/public 3f9a6c0e52d14b7a8e0d9c1f2b3a4d5e
  chancery explain --state /var/lib/chancery/public
  chancery explain --state /var/lib/chancery/public --all --last 100 -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: running(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listDecisions(cmd, state, last, all, output)
			}
			d, err := sidecar.FetchDecision(cmd.Context(), state, args[0])
			switch {
			case errors.Is(err, sidecar.ErrNotFound):
				return &faultError{
					err:  fmt.Errorf("the agent remembers no decision %q", args[0]),
					hint: "another agent may have made it, or it is too long ago: look for the ID in the decision logs",
				}
			case err != nil:
				return agentFault(err, state)
			case output == "json":
				return writeJSON(cmd.OutOrStdout(), d)
			}
			return writeExplained(cmd.OutOrStdout(), &d)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&state, "state", "", "the agent's state directory (required)")
	flags.Uint16Var(&last, "last", 20, "how many decisions to list")
	flags.BoolVar(&all, "all", false, "list what was allowed, too")
	output.add(cmd)
	_ = cmd.MarkFlagRequired("state")
	return cmd
}

// agentFault says what may be wrong when an agent does not answer.
func agentFault(err error, state string) error {
	return &faultError{err: err, hint: fmt.Sprintf("is the agent running, and as this user? chancery sidecar --state %s …", state)}
}

func listDecisions(cmd *cobra.Command, state string, last uint16, all bool, output outputFlag) error {
	found, err := sidecar.FetchDecisions(cmd.Context(), state, last, !all)
	if err != nil {
		return agentFault(err, state)
	}
	if output == "json" {
		return writeJSON(cmd.OutOrStdout(), found)
	}
	t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TIME\tDECISION\tSTATUS\tREASON\tREQUEST\tROUTE\tUSER")
	for i := range found {
		d := &found[i].Decision
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", d.Time.Format(time.DateTime), d.ID, d.Status, d.Reason,
			shown(d.Method+" "+d.Path), cmp.Or(d.Route, "-"), shown(cmp.Or(d.User, "-")))
	}
	return t.Flush()
}

// writeExplained writes a decision for people.
func writeExplained(w io.Writer, e *audit.Explained) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	d := &e.Decision
	row := func(name string, values ...string) {
		values = trimmed(values)
		if len(values) > 0 {
			fmt.Fprintf(t, "%s\t%s\n", name, strings.Join(values, ", "))
		}
	}
	row("decision", d.ID)
	row("result", fmt.Sprintf("%s, %d %s", d.Decision, d.Status, d.Reason))
	row("time", d.Time.Format(time.RFC3339Nano), fmt.Sprintf("took %dµs", d.Microseconds))
	row("policy", d.Policy, labelled("revision", d.Revision), labelled("route", d.Route))
	row("request", strings.TrimSpace(d.Method+" "+d.Path), labelled("id", d.RequestID), labelled("txn", d.Transaction))
	row("from", d.IP, d.Caller)
	row("user", d.User, labelled("of", d.Tenant), labelled("client", d.Client), labelled("by", d.Provider))
	row("shown", d.Credentials...)
	row("cause", e.Cause)
	if d.Decision == audit.Deny {
		row("what to do", "docs/reasons.md#"+d.Reason)
	}
	fmt.Fprintln(t, "looked at")
	for _, s := range e.Trace {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", s.What, shown(cmp.Or(s.Subject, "-")), s.Outcome)
	}
	if len(e.Values) > 0 {
		fmt.Fprintln(t, "values")
	}
	for _, v := range e.Values {
		fmt.Fprintf(t, "  %s\t%s\n", v.Path, shown(v.Text))
	}
	return t.Flush()
}

// trimmed returns the values that are there, harmless on a terminal.
func trimmed(values []string) (there []string) {
	for _, v := range values {
		if v != "" {
			there = append(there, shown(v))
		}
	}
	return there
}

func labelled(label, value string) string {
	if value == "" {
		return ""
	}
	return label + " " + value
}

// shown returns s as it can be shown on a terminal: strangers chose parts of it.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
