package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/extauthz"
	"github.com/chancery-mesh/chancery/extauthz/credential"
	"github.com/chancery-mesh/chancery/internal/atomicfile"
	"github.com/chancery-mesh/chancery/mesh"
)

func newAPIKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apikey",
		Short: "Create, list and revoke API keys",
		Long: `API keys are documents of kind APIKey, each in a file of its own in the directory
of documents, with no more than a hash of the key. Gateways take a change within
seconds.`,
	}
	cmd.AddCommand(newAPIKeyCreateCommand(), newAPIKeyListCommand(), newAPIKeyRevokeCommand())
	return cmd
}

// apiKeyFlags are the flags of all commands about API keys.
type apiKeyFlags struct {
	dir    string
	output outputFlag
}

func (f *apiKeyFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "documents", "", "directory of the documents (required)")
	_ = cmd.MarkFlagRequired("documents")
	f.output.add(cmd)
}

// check returns an error with how many faults there are, and writes them.
func (f *apiKeyFlags) check(cmd *cobra.Command, documents mesh.Documents) error {
	_, err := documents.Compile(extauthz.DocumentOptions())
	if faults, ok := errors.AsType[mesh.Faults](err); ok {
		fmt.Fprintln(cmd.ErrOrStderr(), faults)
		return fmt.Errorf("%s in the documents of %s with the key, so nobody would take it", count(len(faults), "fault"), f.dir)
	}
	return err
}

// lifetimeFlag is a duration that may be in days, or none.
type lifetimeFlag time.Duration

func (f *lifetimeFlag) String() string {
	if *f == 0 {
		return "never"
	}
	if day := lifetimeFlag(24 * time.Hour); *f%day == 0 {
		return fmt.Sprintf("%dd", *f/day)
	}
	return time.Duration(*f).String()
}

func (*lifetimeFlag) Type() string { return "lifetime" }

func (f *lifetimeFlag) Set(s string) error {
	if s == "never" {
		*f = 0
		return nil
	}
	const maxDays = 100 * 365
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 32)
		d = time.Duration(min(n, maxDays+1)) * 24 * time.Hour
	}
	if err != nil || d <= 0 || d > maxDays*24*time.Hour {
		return fmt.Errorf("%q: write a time such as 90d or 12h, of 100 years at most, or never", s)
	}
	*f = lifetimeFlag(d)
	return nil
}

// apiKeyCreateFlags are the flags of "apikey create".
type apiKeyCreateFlags struct {
	apiKeyFlags
	key     mesh.APIKey
	expires lifetimeFlag
	out     string
}

func newAPIKeyCreateCommand() *cobra.Command {
	f := apiKeyCreateFlags{expires: lifetimeFlag(90 * 24 * time.Hour)}
	cmd := &cobra.Command{
		Use:   "create --documents DIR --client CLIENT --owner OWNER",
		Short: "Create an API key",
		Long: `Create makes an API key for a Client that has a document, writes the key's
document to apikey-ID.yaml, and prints the key, or writes it to a file of mode 0600,
which replaces what is there. It is shown this once: the document has no more than
a hash. A key begins with chk_ and ends with a checksum, so that scanners find one
that got into source code.`,
		Example: `  chancery apikey create --documents ./mesh --client batch --owner ops@shop.example --scopes orders:read
  chancery apikey create --documents ./mesh --client batch --owner ops --expires 30d --tenant acme --out batch.key`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }),
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.key.Client, "client", "", "name of the Client whose key it is (required)")
	flags.StringVar(&f.key.Owner, "owner", "", "who it speaks for: the user of its requests (required)")
	flags.StringSliceVar(&f.key.Scopes, "scopes", nil, "scopes of its requests, parted by commas")
	flags.StringVar(&f.key.Tenant, "tenant", "", "tenant of its requests (default the client's)")
	flags.Var(&f.expires, "expires", "how long it is good: 90d, 12h, never")
	flags.StringVar(&f.out, "out", "", "file to write it to (default standard output)")
	_ = cmd.MarkFlagRequired("client")
	_ = cmd.MarkFlagRequired("owner")
	return cmd
}

func (f *apiKeyCreateFlags) run(cmd *cobra.Command) error {
	documents, err := mesh.ReadDir(f.dir)
	if err != nil {
		return err
	}
	var secret string
	f.key.ID, secret = credential.GenerateAPIKey()
	f.key.Hash = credential.HashAPIKey(secret)
	if f.expires != 0 {
		f.key.Expires = time.Now().Add(time.Duration(f.expires)).UTC().Truncate(time.Second)
	}
	text, err := f.key.YAML()
	if err != nil {
		return err
	}
	file := filepath.Join(f.dir, "apikey-"+f.key.ID+".yaml")
	document := mesh.Parse(file, text).Get(mesh.DocumentID{Kind: mesh.KindAPIKey, Name: f.key.ID})
	if err := f.check(cmd, documents.With(document)); err != nil {
		return &faultError{err: err, hint: f.hint(documents)}
	}
	return f.write(cmd, file, text, secret)
}

// hint is about the documents if something is wrong without the key, too: else it
// is with the flags.
func (f *apiKeyCreateFlags) hint(documents mesh.Documents) string {
	if _, err := documents.Compile(extauthz.DocumentOptions()); err != nil {
		return "chancery validate " + f.dir
	}
	return "nothing was written: give other flags, chancery apikey create --help tells of them"
}

// write writes the key first: a document without one is nobody's.
func (f *apiKeyCreateFlags) write(cmd *cobra.Command, file string, text []byte, secret string) error {
	if f.out != "" {
		if err := atomicfile.Write(f.out, []byte(secret+"\n"), 0o600); err != nil {
			return &faultError{err: fmt.Errorf("write key: %w", err), hint: "choose another file, in a directory that you may write to: --out FILE"}
		}
	}
	if err := atomicfile.Write(file, text, 0o644); err != nil {
		if f.out != "" {
			err = errors.Join(err, os.Remove(f.out))
		}
		return err
	}
	shown := apiKeyStatusOf(&f.key, file)
	if f.out == "" {
		shown.Key = secret
	}
	if f.output == "json" {
		return writeJSON(cmd.OutOrStdout(), shown)
	}
	var err error
	if f.out == "" {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), secret)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "API key %s of client %s is in %s; it ends: %s\n", shown.ID, shown.Client, file, shown.end())
	return err
}

// apiKeyStatus is what is told of an API key.
type apiKeyStatus struct {
	ID string `json:"id"`
	// Key is told once.
	Key     string     `json:"key,omitempty"`
	Client  string     `json:"client"`
	Owner   string     `json:"owner"`
	Tenant  string     `json:"tenant,omitempty"`
	Scopes  []string   `json:"scopes,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	State   string     `json:"state"`
	File    string     `json:"file"`
}

func apiKeyStatusOf(k *mesh.APIKey, file string) apiKeyStatus {
	s := apiKeyStatus{ID: k.ID, Client: k.Client, Owner: k.Owner, Tenant: k.Tenant, Scopes: k.Scopes, State: "good", File: file}
	if !k.Expires.IsZero() {
		s.Expires = &k.Expires
	}
	switch {
	case k.Revoked:
		s.State = "revoked"
	case s.Expires != nil && !time.Now().Before(k.Expires):
		s.State = "ended"
	}
	return s
}

func (s *apiKeyStatus) end() string {
	if s.Expires == nil {
		return "never"
	}
	return s.Expires.UTC().Format(time.RFC3339)
}

func newAPIKeyListCommand() *cobra.Command {
	var f apiKeyFlags
	cmd := &cobra.Command{
		Use:   "list --documents DIR",
		Short: "List the API keys, without their secrets",
		Example: `  chancery apikey list --documents ./mesh
  chancery apikey list --documents ./mesh -o json`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			documents, err := mesh.ReadDir(f.dir)
			if err != nil {
				return err
			}
			keys := []apiKeyStatus{}
			for _, document := range documents.All() {
				if key := document.APIKey(); key != nil {
					keys = append(keys, apiKeyStatusOf(key, document.Position.File))
				}
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), keys)
			}
			return writeAPIKeys(cmd.OutOrStdout(), keys)
		}),
	}
	f.add(cmd)
	return cmd
}

func writeAPIKeys(w io.Writer, keys []apiKeyStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tCLIENT\tOWNER\tTENANT\tSCOPES\tENDS\tSTATE")
	for _, k := range keys {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Client, k.Owner, orElse(k.Tenant, "-"), orElse(strings.Join(k.Scopes, ","), "-"), k.end(), k.State)
	}
	return t.Flush()
}

func newAPIKeyRevokeCommand() *cobra.Command {
	var f apiKeyFlags
	cmd := &cobra.Command{
		Use:   "revoke ID --documents DIR",
		Short: "Revoke an API key",
		Long: `Revoke marks a key's document, so that gateways refuse the key within seconds, and
tell why in their logs. Remove the file when nobody asks any more.`,
		Example: "  chancery apikey revoke 4fT0kZr9Qw --documents ./mesh",
		Args:    cobra.ExactArgs(1),
		RunE: running(func(cmd *cobra.Command, args []string) error {
			documents, err := mesh.ReadDir(f.dir)
			if err != nil {
				return err
			}
			document := documents.Get(mesh.DocumentID{Kind: mesh.KindAPIKey, Name: args[0]})
			if document == nil || document.APIKey() == nil {
				return &faultError{err: fmt.Errorf("no API key %q in %s", args[0], f.dir), hint: "chancery apikey list --documents " + f.dir}
			}
			return f.revoke(cmd, document)
		}),
	}
	f.add(cmd)
	return cmd
}

// revoke rewrites the file of a key, unless somebody wrote it by hand.
func (f *apiKeyFlags) revoke(cmd *cobra.Command, document *mesh.Document) error {
	key, file := document.APIKey(), document.Position.File
	if filepath.Base(file) != "apikey-"+key.ID+".yaml" {
		return &faultError{
			err:  fmt.Errorf("API key %s is not in a file of its own", key.ID),
			hint: fmt.Sprintf("write revoked: true to the document at %s:%d", file, document.Position.Line),
		}
	}
	key.Revoked = true
	text, err := key.YAML()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(file, text, 0o644); err != nil {
		return err
	}
	if f.output == "json" {
		return writeJSON(cmd.OutOrStdout(), apiKeyStatusOf(key, file))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "API key %s of client %s is revoked\n", key.ID, key.Client)
	return err
}
