package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/chancery-mesh/chancery/internal/unixsocket"
)

// agentSocket is where an agent tells the commands of its own user about
// itself.
const agentSocket = "agent.sock"

// serveCommands answers on agentSocket until ctx ends.
func (a *Agent) serveCommands(ctx context.Context) error {
	listener, err := unixsocket.Listen(a.config.path(agentSocket))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /identity", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.Identity()) // the client went away
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// FetchIdentity asks the agent of a state directory what it has.
func FetchIdentity(ctx context.Context, stateDir string) (Identity, error) {
	socket := filepath.Join(stateDir, agentSocket)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	var id Identity
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/identity", nil)
	if err != nil {
		return id, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return id, fmt.Errorf("ask the agent: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return id, fmt.Errorf("ask the agent: it answered %s", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&id); err != nil {
		return id, fmt.Errorf("ask the agent: %w", err)
	}
	return id, nil
}
