// Package envoytest runs a real Envoy in tests, with what it needs around it:
// an [Agent] that serves it configuration, secrets and decisions as a sidecar's
// agent would, an [Upstream] that tells what reached it, and an [Authority] for
// certificates.
//
// Package tooltest says where Envoy is looked for, and what happens without it.
package envoytest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/chancery-mesh/chancery/internal/tooltest"
)

// Path returns where Envoy is; see [tooltest.Path].
func Path(t testing.TB) string {
	t.Helper()
	return tooltest.Path(t, "envoy", "run `make test`")
}

// Validate fails the test unless Envoy would start with that bootstrap. The
// discovery services that it names are not asked.
func Validate(t testing.TB, bootstrap proto.Message) {
	t.Helper()
	path := Path(t)
	cmd := exec.CommandContext(t.Context(), path, "--mode", "validate",
		"--concurrency", "1", "--log-level", "error", "-c", writeConfig(t, bootstrap))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("envoy refuses the configuration: %v\n%s", err, bytes.TrimSpace(out))
	}
}

func writeConfig(t testing.TB, bootstrap proto.Message) string {
	t.Helper()
	text, err := protojson.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
