package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/audit"
	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/decisions"
	"github.com/chancery-mesh/chancery/extauthz/trial"
	"github.com/chancery-mesh/chancery/internal/commandsocket"
	"github.com/chancery-mesh/chancery/passport"
)

// explainFlags are the flags of explain.
type explainFlags struct {
	state  string
	last   uint16
	all    bool
	output outputFlag
	requestFlags
	// documents decide in place of an agent.
	documents, gateway, service, passportKeys string
}

func newExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain --state DIR [ID | URL]",
		Short: "Show why a request was let in or not, or would be",
		Long: `Explain asks an agent how it came to a decision: which credentials it found, what
it looked at in which order, and which rule decided by which values. A client
that was refused knows the decision's ID from the answer ("decision"); it is in
the decision log, and in Envoy's dynamic metadata, too.

Without an ID it lists the last denials. An agent remembers some thousand
decisions, and forgets them when it ends. What they tell of people is as the
documents say ("decisions: {redact: …}"), and they hold no token, key or password.

With a URL, or a path, it asks how the agent would decide about a request that has
not happened. Nothing comes of that: no Passport is made, no identity provider is
asked unless --introspect says so, nothing is logged. What Envoy does before it
asks (limits, certificates of connections, headers that it removes) is left out.
With --documents, documents that no agent has yet decide, with the keys that
identity providers have now, and those of Passports in a file of an agent.

Exit codes: 0, also where a decision is a denial; 1 when there is no answer.`,
		Example: `  chancery explain --state /var/lib/chancery/public 3f9a6c0e52d14b7a8e0d9c1f2b3a4d5e
  chancery explain --state /var/lib/chancery/public
  chancery explain --state /var/lib/chancery/public --all --last 100 -o json
  chancery explain --state /var/lib/chancery/public -X POST -H @headers.txt -d '{"amount": 7}' https://api.shop.example/service/orders/orders
  chancery explain --state /var/lib/chancery/orders --caller gateway/public -H @passport.txt /orders/7
  chancery explain --documents ./mesh --gateway public -H @headers.txt /orders/7`,
		Args: cobra.MaximumNArgs(1),
		RunE: running(func(cmd *cobra.Command, args []string) error {
			isURL := len(args) > 0 && strings.Contains(args[0], "/")
			switch {
			case f.documents != "" && !isURL:
				return errors.New("documents have decided nothing: write a URL or a path, or ask an agent with --state")
			case len(args) == 0:
				return f.list(cmd)
			case isURL:
				return f.suppose(cmd, args[0])
			}
			return f.find(cmd, args[0])
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.state, "state", "", "the agent's state directory; this or --documents is required")
	flags.StringVar(&f.documents, "documents", "", "directory of documents that decide in place of an agent")
	flags.StringVar(&f.gateway, "gateway", "", "with --documents: the gateway that decides (default the only one)")
	flags.StringVar(&f.service, "service", "", "with --documents: the service that decides")
	flags.StringVar(&f.passportKeys, "passport-keys", "", `with --service: public keys of Passports, such as "passport-keys.json" of a sidecar's --state`)
	flags.Uint16Var(&f.last, "last", 20, "how many decisions to list")
	flags.BoolVar(&f.all, "all", false, "list what was allowed, too")
	f.requestFlags.add(cmd)
	f.output.add(cmd)
	cmd.MarkFlagsOneRequired("state", "documents")
	cmd.MarkFlagsMutuallyExclusive("state", "documents")
	cmd.MarkFlagsMutuallyExclusive("gateway", "service")
	return cmd
}

// find explains a decision that was made.
func (f *explainFlags) find(cmd *cobra.Command, id string) error {
	d, err := decisions.Find(cmd.Context(), f.state, id)
	switch {
	case errors.Is(err, decisions.ErrNotFound):
		return &faultError{
			err:  fmt.Errorf("the agent remembers no decision %q", id),
			hint: "another agent may have made it, or it is too long ago: look for the ID in the decision logs",
		}
	case err != nil:
		return agentFault(err, f.state)
	}
	return f.write(cmd, &d)
}

// suppose explains what would be decided.
func (f *explainFlags) suppose(cmd *cobra.Command, url string) error {
	h, err := f.hypothesis(cmd.InOrStdin(), url)
	if err != nil {
		return err
	}
	if f.documents != "" {
		return f.supposeByDocuments(cmd, h)
	}
	d, err := decisions.Suppose(cmd.Context(), f.state, h)
	if err != nil {
		return agentFault(err, f.state)
	}
	return f.write(cmd, &d)
}

// supposeByDocuments explains what documents would decide.
func (f *explainFlags) supposeByDocuments(cmd *cobra.Command, h *extauthz.Hypothesis) error {
	m, err := readMesh(cmd.ErrOrStderr(), f.documents)
	if err != nil {
		return err
	}
	by := trial.Documents{Mesh: m, Gateway: f.gateway, Service: f.service}
	if f.passportKeys != "" {
		text, err := os.ReadFile(f.passportKeys)
		if err == nil {
			by.PassportKeys, err = passport.ParseKeySet(text, "")
		}
		if err != nil {
			return fmt.Errorf("--passport-keys: %w", err)
		}
	}
	record, err := by.Explain(cmd.Context(), h)
	if err != nil {
		return err
	}
	d, err := decisions.New(decisions.Config{}).Explain(record)
	if err != nil {
		return err
	}
	d.Hypothetical = true
	return f.write(cmd, &d)
}

func (f *explainFlags) write(cmd *cobra.Command, d *audit.Explained) error {
	if f.output == "json" {
		return writeJSON(cmd.OutOrStdout(), d)
	}
	return writeExplained(cmd.OutOrStdout(), d)
}

// agentFault says what may be wrong when an agent does not answer.
func agentFault(err error, state string) error {
	if errors.Is(err, commandsocket.ErrAnswered) {
		return err // it is there
	}
	return &faultError{
		err:  err,
		hint: fmt.Sprintf("is the agent running, and as this user? It is who has --state %s: chancery sidecar, gateway or authz", state),
	}
}

func (f *explainFlags) list(cmd *cobra.Command) error {
	found, err := decisions.Last(cmd.Context(), f.state, f.last, !f.all)
	if err != nil {
		return agentFault(err, f.state)
	}
	if f.output == "json" {
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
	if e.Hypothetical {
		row("decision", "hypothetical: this request has not happened")
	} else {
		row("decision", d.ID)
	}
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
