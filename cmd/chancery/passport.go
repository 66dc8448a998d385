package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/passport"
)

func newPassportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "passport",
		Short: "Read and verify Passports",
	}
	cmd.AddCommand(newPassportInspectCommand(), newPassportVerifyCommand())
	return cmd
}

func newPassportInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect",
		Short: "Show what a Passport on standard input says, without verifying it",
		Example: `  chancery passport inspect < passport.txt
  xclip -o | chancery passport inspect`,
		Args: cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			token, err := readToken(cmd.InOrStdin())
			if err != nil {
				return err
			}
			p, keyID, err := passport.Inspect(token)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "chancery: warning: not verified; anybody could have written this")
			return printPassport(cmd.OutOrStdout(), p, keyID)
		}),
	}
}

func newPassportVerifyCommand() *cobra.Command {
	var keysFile, trustDomain string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Verify a Passport on standard input against a mesh's keys",
		Long: `Verify checks signature, key (owner, end, identity providers, tenants),
audience and lifetime of the Passport on standard input, as every sidecar does,
and shows what it says.

The keys are a JWK Set whose members name their gateway ("owner"). The agent of
each sidecar keeps those that its service takes in <state>/passport-keys.json.`,
		Example: "  chancery passport verify --jwks passport-keys.json --trust-domain shop.example < passport.txt",
		Args:    cobra.NoArgs,
		RunE: running(func(cmd *cobra.Command, _ []string) error {
			jwks, err := os.ReadFile(keysFile)
			if err != nil {
				return err
			}
			keys, err := passport.ParseKeySet(jwks, "")
			if err != nil {
				return fmt.Errorf("%s: %w", keysFile, err)
			}
			verifier, err := passport.NewVerifier(passport.VerifierConfig{TrustDomain: trustDomain, Keys: keys})
			if err != nil {
				return err
			}
			token, err := readToken(cmd.InOrStdin())
			if err != nil {
				return err
			}
			p, err := verifier.Verify(token)
			if err != nil {
				return err
			}
			_, keyID, err := passport.Inspect(token)
			if err != nil {
				return err
			}
			return printPassport(cmd.OutOrStdout(), p, keyID)
		}),
	}
	cmd.Flags().StringVar(&keysFile, "jwks", "", "file with the mesh's Passport keys (required)")
	cmd.Flags().StringVar(&trustDomain, "trust-domain", "", "trust domain that the Passport must be meant for (required)")
	_ = cmd.MarkFlagRequired("jwks")
	_ = cmd.MarkFlagRequired("trust-domain")
	return cmd
}

// readToken reads a token from standard input, never from an argument: those
// are seen by every process of the machine.
func readToken(r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, passport.MaxSize+2))
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", errors.New("no Passport on standard input")
	}
	return token, nil
}

func printPassport(w io.Writer, p *passport.Passport, keyID string) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(map[string]any{
		"kid": keyID, "txn": p.ID, "sub": p.Subject, "aud": p.Audience, "req_wl": p.Gateway, "scope": p.Scopes,
		"iat": p.IssuedAt.UTC().Format(time.RFC3339), "exp": p.ExpiresAt.UTC().Format(time.RFC3339),
		"tctx": map[string]any{"idp": p.Provider, "tenant": p.Tenant, "groups": p.Groups, "client": p.Client},
		"rctx": map[string]any{"req_ip": p.ClientIP, "authn": p.Authn},
	})
}
