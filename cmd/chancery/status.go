package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/controlplane"
	"github.com/chancery-mesh/chancery/extauthz/provider"
)

// adminFlags are the flags of commands that ask the control plane.
type adminFlags struct {
	runDir string
	output outputFlag
	wait   time.Duration
}

func (f *adminFlags) add(cmd *cobra.Command) {
	f.addRun(cmd)
	f.output.add(cmd)
}

func (f *adminFlags) addRun(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.runDir, "run", defaultRunDir, "the control plane's directory for its socket")
}

func (f *adminFlags) addWait(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.wait, "wait", 0, "how long to wait for a control plane that is just starting")
}

func (f *adminFlags) client() *controlplane.AdminClient { return controlplane.NewAdminClient(f.runDir) }

// await returns a client once the control plane is there, or must be.
func (f *adminFlags) await(ctx context.Context) (*controlplane.AdminClient, error) {
	client := f.client()
	ctx, cancel := context.WithTimeout(ctx, f.wait)
	defer cancel()
	if f.wait > 0 {
		if err := client.Await(ctx); err != nil {
			return nil, f.fault(err, "chancery status")
		}
	}
	return client, nil
}

// fault adds the way out: a command that shows what is there if the control
// plane answered, and how to start it otherwise.
func (f *adminFlags) fault(err error, command string) error {
	hint := fmt.Sprintf("is the control plane running? chancery serve --run %s …", f.runDir)
	answer, answered := errors.AsType[*controlplane.AnswerError](err)
	switch {
	case answered && answer.Status == http.StatusServiceUnavailable:
		hint = f.command("chancery status")
	case answered:
		hint = f.command(command)
	}
	return &faultError{err: err, hint: hint}
}

// command is a command to copy, for the same control plane.
func (f *adminFlags) command(command string) string {
	if f.runDir != defaultRunDir {
		command += " --run " + f.runDir
	}
	return command
}

func newStatusCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the control plane and its documents are",
		Long: `Status shows whether the documents in force are those in the directory, what is
wrong with them if not, and how registry and identity providers are.

Exit codes: 0 when the control plane is ready, whatever it says of documents; 1
when it is not, when the rotation of its authority fails, or when it does not
answer.`,
		Example: `  chancery status
  chancery status -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			status, err := f.client().Status(cmd.Context())
			if err != nil {
				return f.fault(err, "chancery status")
			}
			if f.output == "json" {
				err = writeJSON(cmd.OutOrStdout(), status)
			} else {
				err = writeStatus(cmd.OutOrStdout(), status)
			}
			if err != nil {
				return err
			}
			return f.ill(status)
		}),
	}
	f.add(cmd)
	return cmd
}

// ill is an error if the control plane is not ready, or cannot replace its
// authority: then it will not be.
func (f *adminFlags) ill(s controlplane.Status) error {
	if s.NotReady != "" {
		return fmt.Errorf("not ready: %s", s.NotReady)
	}
	if s.Authority == nil {
		return nil
	}
	for _, step := range s.Authority.Next {
		if problem := step.Problem(); problem != "" {
			return &faultError{err: errors.New(problem), hint: f.command(step.Mend())}
		}
	}
	return nil
}

func writeStatus(w io.Writer, s controlplane.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "version\t%s, up %s\n", s.Version, age(s.Started))
	fmt.Fprintf(t, "ready\t%s\n", orElse(s.NotReady, "yes"))
	documents := "valid"
	switch {
	case s.Documents.Restored:
		documents = "NOT VALID; those of an earlier process are in force"
	case !s.Documents.Valid:
		documents = "NOT VALID; the last good ones are in force"
	}
	fmt.Fprintf(t, "documents\t%s (%d from %s, since %s)\n", documents, s.Documents.Served, s.Documents.Dir, age(s.Documents.Since))
	for _, fault := range s.Documents.Faults {
		fmt.Fprintf(t, "\t%s\n", fault)
	}
	for _, q := range s.Quarantine {
		served := "is not served"
		if q.Previous {
			served = "is served in its previous version"
		}
		fmt.Fprintf(t, "quarantine\t%s %s to %s: %s rejected it: %s\n", q.Document, served, q.View, q.Proxy, q.Reason)
	}
	for _, v := range s.Views {
		proven := "proven"
		if v.Proven != v.Revision {
			proven = "proven is " + orElse(v.Proven, "none")
		}
		fmt.Fprintf(t, "view\t%s\trevision %s (%s), %s\n", v.Name, v.Revision, proven, proxyCount(v.Streams))
	}
	if a := s.Authority; a != nil {
		fmt.Fprintf(t, "trust\t%d\tspiffe://%s, %s, %s\n", a.Sequence, a.TrustDomain, count(len(a.Roots), "root"), certificates(*a))
		for _, issuer := range a.Issuers {
			fmt.Fprintf(t, "authority\t%s\t%s, ends in %s\n", issuer.ID, issuer.State, until(issuer.Expires))
		}
		for _, step := range a.Next {
			fmt.Fprintf(t, "rotation\t%s\t%s\n", step.Step, when(step))
			writeProblem(t, step)
		}
	}
	for _, service := range s.Services {
		fmt.Fprintf(t, "service\t%s\t%s%s\n", service.Name, count(service.Instances, "instance"), held(service))
	}
	for _, p := range s.Providers {
		fmt.Fprintf(t, "provider\t%s\t%s\n", p.Name, providerState(p))
	}
	return t.Flush()
}

func held(s controlplane.ServiceStatus) string {
	if !s.Held {
		return ""
	}
	return ", HELD: " + s.Reason
}

func providerState(p provider.Status) string {
	var parts []string
	if p.Opaque {
		parts = append(parts, "is asked about each token")
	} else if p.FetchedAt.IsZero() {
		parts = append(parts, "NO KEYS: its tokens are refused")
	} else if time.Now().After(p.UsableUntil) {
		parts = append(parts, fmt.Sprintf("KEYS TOO OLD, %s: its tokens are refused", age(p.FetchedAt)))
	} else {
		parts = append(parts, fmt.Sprintf("keys are %s old, usable until %s", age(p.FetchedAt), p.UsableUntil.Format(time.RFC3339)))
	}
	if p.Error != "" {
		parts = append(parts, "last fetch: "+p.Error)
	}
	return strings.Join(parts, "; ")
}

func age(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return time.Since(t).Round(time.Second).String()
}

// until says how long it is till then.
func until(t time.Time) string {
	d := time.Until(t)
	if d <= 0 {
		return "0s"
	}
	return round(d)
}

// round leaves out what nobody wants to know.
func round(d time.Duration) string {
	switch {
	case d > 48*time.Hour:
		return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
	case d > 2*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d/time.Hour), int(d%time.Hour/time.Minute))
	}
	return d.Round(time.Second).String()
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
