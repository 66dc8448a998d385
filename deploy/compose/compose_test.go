//go:build compose

// Package compose_test tries docker-compose.yml in the Docker engine that
// scripts/test-compose starts for it. COMPOSE is the compose program.
package compose_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const gateway = "https://127.0.0.1:8443"

func TestCompose(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(compose(t, "ps", "--all") + compose(t, "logs", "--tail=40"))
		}
		compose(t, "down", "--volumes", "--timeout=5")
	})
	// It returns once welcome starts, which waits until all the others are healthy.
	compose(t, "up", "--detach")
	trustGateway(t)

	authorization := token(t, `{}`)
	t.Run("welcome says where to send the first request", func(t *testing.T) {
		if out := compose(t, "logs", "welcome"); !strings.Contains(out, gateway+"/orders/1") {
			t.Errorf("welcome printed %s", out)
		}
	})
	t.Run("the service gets a Passport, and not the token", func(t *testing.T) { tryPassport(t, authorization) })
	t.Run("a service that may not call another", func(t *testing.T) { tryCaller(t, authorization) })
	for name, try := range map[string]struct {
		method, path, authorization string
		want                        int
	}{
		"no token":                   {"GET", "/orders/1", "", http.StatusUnauthorized},
		"a token that is not one":    {"GET", "/orders/1", "Bearer x.y.z", http.StatusUnauthorized},
		"a user in no group":         {"GET", "/orders/1", token(t, `{"groups": []}`), http.StatusForbidden},
		"a path that is not routed":  {"GET", "/admin", authorization, http.StatusNotFound},
		"a path that reads two ways": {"GET", "/orders/%2e%2e/admin", authorization, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			if status, body := request(t, try.method, try.path, try.authorization); status != try.want {
				t.Errorf("%s %s: %d, want %d: %s", try.method, try.path, status, try.want, body)
			}
		})
	}
	t.Run("only the gateway is published, on loopback", tryPublished)
	t.Run("no secret in the file", tryNoSecret)
	t.Run("no service sees what is its agent's", tryApart)
	t.Run("control plane and agents share nothing but a token each", tryShared)
	t.Run("the control plane tells of mutual TLS with each agent", tryIdentities)
}

// client trusts the gateway's authority, and nobody else.
var client *http.Client

func trustGateway(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "outside.ca.crt")
	compose(t, "cp", "gateway:/certificates/outside.ca.crt", file)
	bundle, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatalf("no certificate in %s", bundle)
	}
	client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

// tryShared checks that no volume of the control plane's is an agent's as well,
// but for the one that its join token came in.
func tryShared(t *testing.T) {
	all := services(t)
	for name, agent := range all {
		if name == "control-plane" {
			continue
		}
		for _, v := range agent.Volumes {
			shared := slices.ContainsFunc(all["control-plane"].Volumes, func(own volume) bool { return own.Source == v.Source })
			if shared && (!strings.HasSuffix(v.Source, "-token") || !v.ReadOnly) {
				t.Errorf("%s and the control plane share %+v", name, v)
			}
		}
	}
}

// tryIdentities checks that each proxy is there by a certificate.
func tryIdentities(t *testing.T) {
	out := compose(t, "exec", "-T", "control-plane", "/usr/local/bin/chancery", "proxies", "-o", "json")
	var proxies []struct {
		Name        string `json:"name"`
		Certificate struct {
			Serial string `json:"serial"`
		} `json:"certificate"`
	}
	if err := json.Unmarshal([]byte(out), &proxies); err != nil {
		t.Fatal(err)
	}
	if len(proxies) != 4 {
		t.Errorf("%d proxies: %s", len(proxies), out)
	}
	for _, p := range proxies {
		if p.Certificate.Serial == "" {
			t.Errorf("%s has no certificate", p.Name)
		}
	}
}

// answer is what the shop's services say that they received.
type answer struct {
	Passport struct {
		User string `json:"user"`
	} `json:"passport"`
	Authorization bool `json:"authorization"`
	Upstream      struct {
		Service string `json:"service"`
		Status  int    `json:"status"`
	} `json:"upstream"`
}

// token has the issuer sign a token with claims that replace the usual ones, and
// returns what to authorize with.
func token(t *testing.T, claims string) string {
	t.Helper()
	header := strings.TrimSpace(compose(t, "exec", "-T", "issuer", "/usr/local/bin/shop", "token", "--claims", claims))
	_, authorization, ok := strings.Cut(header, ": ")
	if !ok {
		t.Fatalf("the issuer wrote %q, want a header", header)
	}
	return authorization
}

func tryPassport(t *testing.T, authorization string) {
	a := ask(t, "GET", "/orders/1", authorization)
	if a.Passport.User != "ada" || a.Authorization || a.Upstream.Service != "inventory" || a.Upstream.Status != http.StatusOK {
		t.Errorf("orders received %+v", a)
	}
}

// tryCaller has payments reserve stock, which only orders may.
func tryCaller(t *testing.T, authorization string) {
	if a := ask(t, "POST", "/payments/1/refund", authorization); a.Upstream.Status != http.StatusForbidden {
		t.Errorf("inventory answered payments %d, want 403", a.Upstream.Status)
	}
}

func ask(t *testing.T, method, path, authorization string) (a answer) {
	t.Helper()
	status, body := request(t, method, path, authorization)
	if err := json.Unmarshal([]byte(body), &a); err != nil || status != http.StatusOK {
		t.Fatalf("%s %s: %d, want 200 and JSON: %s", method, path, status, body)
	}
	return a
}

func tryPublished(t *testing.T) {
	for name, service := range services(t) {
		for _, port := range service.Ports {
			if name != "gateway" || port.HostIP != "127.0.0.1" {
				t.Errorf("%s is published on %q", name, port.HostIP)
			}
		}
	}
}

// tryApart checks that services share no user with the agents, and of their
// volumes only the one with public keys.
func tryApart(t *testing.T) {
	all := services(t)
	for _, name := range []string{"orders", "inventory", "payments"} {
		service, sidecar := all[name], all[name+"-sidecar"]
		if service.User == sidecar.User {
			t.Errorf("%s is the user that its agent is, %s", name, service.User)
		}
		for _, volume := range service.Volumes {
			if volume.Source != name+"-keys" || !volume.ReadOnly {
				t.Errorf("%s mounts %+v", name, volume)
			}
		}
	}
}

// service is what the tests read of compose's configuration.
type service struct {
	User  string `json:"user"`
	Ports []struct {
		HostIP string `json:"host_ip"`
	} `json:"ports"`
	Volumes []volume `json:"volumes"`
}

type volume struct {
	Source   string `json:"source"`
	ReadOnly bool   `json:"read_only"`
}

func services(t *testing.T) map[string]service {
	t.Helper()
	var config struct {
		Services map[string]service `json:"services"`
	}
	if err := json.Unmarshal([]byte(compose(t, "config", "--format", "json")), &config); err != nil {
		t.Fatal(err)
	}
	return config.Services
}

func tryNoSecret(t *testing.T) {
	secret := regexp.MustCompile(`(?i)password|passwd|secret|api.?key|_token\b|private key|eyJ`)
	if found := secret.FindString(compose(t, "config")); found != "" {
		t.Errorf("docker-compose.yml has %q", found)
	}
}

func request(t *testing.T, method, path, authorization string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, gateway+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

// compose runs one command and returns what it printed.
func compose(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(os.Getenv("COMPOSE"), append([]string{"--file", "../../docker-compose.yml", "--progress=plain"}, args...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("compose %s: %v\n%s%s", strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}
