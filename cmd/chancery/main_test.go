package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/chancery-mesh/chancery/passport"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"chancery": main, "mint": mint, "sign": sign, "ask": ask, "pack": pack})
}

var update = flag.Bool("update", false, "rewrite the golden parts of scripts")

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"address": address, "eventually": eventually, "pause": pause, "pki": pki, "proves": proves, "settled": settled,
		},
		RequireExplicitExec: true,
		UpdateScripts:       *update,
	})
}

// mint writes a Passport and the keys that verify it, in place of a gateway.
func mint() {
	public, private, err := ed25519.GenerateKey(nil)
	check(err)
	signer, err := passport.NewSigner(private)
	check(err)
	const gateway = "spiffe://shop.example/gateway/public"
	now := time.Now()
	token, err := signer.Mint(&passport.Passport{
		ID: "chain-1", Subject: "ada", Audience: "shop.example", Gateway: gateway, Provider: "staff",
		IssuedAt: now, ExpiresAt: now.Add(time.Minute),
	})
	check(err)
	keys, err := json.Marshal(passport.KeySet{signer.KeyID(): {
		Owner: gateway, Public: public, Until: now.Add(time.Hour), Providers: []string{"staff"},
	}})
	check(err)
	check(os.WriteFile("passport.txt", []byte(token+"\n"), 0o600))
	check(os.WriteFile("keys.json", keys, 0o600))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestUsage keeps docs/usage.md equal to what the commands say of themselves.
func TestUsage(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Commands\n\nGenerated from the commands' own help: `go test ./cmd/chancery -run TestUsage -update`.\n")
	writeUsage(t, &b, newRootCommand())
	const file = "../../docs/usage.md"
	if *update {
		check(os.WriteFile(file, []byte(b.String()), 0o644))
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != b.String() {
		t.Errorf("%s is not what the commands say (%v); -update rewrites it", file, err)
	}
}

func writeUsage(t *testing.T, b *strings.Builder, cmd *cobra.Command) {
	t.Helper()
	if cmd.Name() == "completion" || cmd.Name() == "help" {
		return
	}
	cmd.InitDefaultHelpFlag()
	fmt.Fprintf(b, "\n## %s\n\n```\n%s\n```\n", cmd.CommandPath(), help(cmd))
	for _, child := range cmd.Commands() {
		writeUsage(t, b, child)
	}
}

// help is what --help prints.
func help(cmd *cobra.Command) string {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	return strings.TrimSpace(text + "\n\n" + cmd.UsageString())
}

// The documents that others learn from decide as their tests say.
func TestExamplesDecideAsTheyShould(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if code := run([]string{"test", "../../examples/shop/mesh"}, &stdout, &stderr); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, &stdout, &stderr)
	}
}
