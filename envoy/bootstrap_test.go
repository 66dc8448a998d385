package envoy_test

import (
	"os"
	"path/filepath"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	"github.com/chancery-mesh/chancery/envoy"
	"github.com/chancery-mesh/chancery/internal/envoytest"
	"github.com/chancery-mesh/chancery/internal/golden"
)

func testBootstrap(dir string) *bootstrapv3.Bootstrap {
	return envoy.Bootstrap(envoy.BootstrapConfig{
		NodeID:      "service/orders/1",
		Cluster:     "service/orders",
		Socket:      filepath.Join(dir, "envoy.sock"),
		AdminSocket: filepath.Join(dir, "admin.sock"),
	})
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	golden.Run(t, "testdata/bootstrap/*.txtar", func(t *testing.T, _ golden.Files) golden.Files {
		text, err := envoy.YAML(testBootstrap("/run/chancery"))
		if err != nil {
			t.Fatal(err)
		}
		return golden.Files{"bootstrap.yaml": string(text)}
	})
}

func TestBootstrapIsValid(t *testing.T) {
	t.Parallel()
	envoytest.Validate(t, testBootstrap("/run/chancery"))
}

// Whoever talks to Envoy's admin interface owns it.
func TestAdminIsForOurselves(t *testing.T) {
	t.Parallel()
	agent := envoytest.NewAgent(t, "service/orders/1")
	agent.Push()
	envoytest.Start(t, testBootstrap(agent.Dir))
	info, err := os.Stat(filepath.Join(agent.Dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("mode of the admin socket is %o", mode)
	}
}
