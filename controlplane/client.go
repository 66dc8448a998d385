package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"
)

// AdminClient asks a running control plane over its admin socket.
type AdminClient struct{ http *http.Client }

// NewAdminClient returns a client of the control plane that runs in runDir.
func NewAdminClient(runDir string) *AdminClient {
	path := AdminSocket(runDir)
	return &AdminClient{http: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// Status returns how the control plane is.
func (c *AdminClient) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.get(ctx, "/status", &s)
	return s, err
}

// Proxies returns how each proxy stands, sorted by name and instance.
func (c *AdminClient) Proxies(ctx context.Context) ([]ProxyStatus, error) {
	var p []ProxyStatus
	err := c.get(ctx, "/proxies", &p)
	return p, err
}

func (c *AdminClient) get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://control-plane"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the control plane: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the control plane: %s answered %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("ask the control plane: %w", err)
	}
	return nil
}
