package sidecar_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chancery-mesh/chancery/sidecar"
)

func (a *agent) httpGet(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestHandlerBeforeAnythingIsThere(t *testing.T) {
	a := newAgent(t, newControlPlane(t, public))
	a.start()
	if w := a.httpGet("/healthz"); w.Code != http.StatusOK {
		t.Errorf("/healthz: %d", w.Code)
	}
	w := a.httpGet("/readyz")
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d", w.Code)
	}
	for _, reason := range []string{"certificate", "passport key", "policy", "envoy not connected", "acknowledged"} {
		if !strings.Contains(w.Body.String(), reason) {
			t.Errorf("/readyz does not speak of %q: %s", reason, w.Body)
		}
	}
}

func TestHandlerTellsHowEnvoyStands(t *testing.T) {
	_, a, _ := startMesh(t, "orders")
	eventually(t, "ready", a.Ready)
	if w := a.httpGet("/readyz"); w.Code != http.StatusOK {
		t.Errorf("/readyz: %d %s", w.Code, w.Body)
	}
	var status sidecar.Status
	check(t, json.Unmarshal(a.httpGet("/status").Body.Bytes(), &status))
	if !status.ControlPlaneConnected || !status.EnvoyConnected || status.AcknowledgedRevision != "rev-1" ||
		status.Identity != "gateway/public" || status.CertificateExpires == nil || len(status.Types) != 4 || status.NotReady != "" {
		t.Errorf("/status: %+v", status)
	}
	metrics := a.httpGet("/metrics").Body.String()
	for _, line := range []string{"chancery_envoy_connected 1", "chancery_control_plane_connected 1", "chancery_svid_expiry_timestamp_seconds 1."} {
		if !strings.Contains(metrics, line) {
			t.Errorf("/metrics lacks %q:\n%s", line, metrics)
		}
	}
}

func TestNewRejectsWhatIsMissing(t *testing.T) {
	t.Parallel()
	good := newAgent(t, newControlPlane(t, public)).config
	for name, spoil := range map[string]func(*sidecar.Config){
		"identity":        func(c *sidecar.Config) { c.Identity.Name, c.Identity.Role = "", "" },
		"control plane":   func(c *sidecar.Config) { c.ControlPlane = "" },
		"state directory": func(c *sidecar.Config) { c.StateDir = "" },
		"logger":          func(c *sidecar.Config) { c.Logger = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := good
			spoil(&config)
			if _, err := sidecar.New(config); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("New: %v", err)
			}
		})
	}
	if _, err := sidecar.New(good); err != nil {
		t.Errorf("New: %v", err)
	}
}
