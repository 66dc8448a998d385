package sidecar

import (
	"bytes"
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
	server := &http.Server{Handler: a.commands(), ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// commands answers what commands ask.
func (a *Agent) commands() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /identity", func(w http.ResponseWriter, _ *http.Request) { answer(w, a.Identity()) })
	mux.HandleFunc("GET /decisions", a.tellDecisions)
	mux.HandleFunc("GET /decisions/{id}", a.tellDecision)
	mux.HandleFunc("POST /decisions", a.tellHypothesis)
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away
}

// FetchIdentity asks the agent of a state directory what it has.
func FetchIdentity(ctx context.Context, stateDir string) (Identity, error) {
	var id Identity
	err := ask(ctx, stateDir, "/identity", nil, &id)
	return id, err
}

// ErrNotFound says that the agent does not have what it was asked for.
var ErrNotFound = errors.New("it has no such thing")

// ask has the agent of a state directory answer a question. With a body, which
// may be nil, it is a POST.
func ask(ctx context.Context, stateDir, question string, body, into any) error {
	req, err := newQuestion(ctx, question, body)
	if err == nil {
		err = do(req, filepath.Join(stateDir, agentSocket), into)
	}
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	return nil
}

func newQuestion(ctx context.Context, question string, body any) (*http.Request, error) {
	if body == nil {
		return http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+question, nil)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+question, bytes.NewReader(text))
}

func do(req *http.Request, socket string, into any) error {
	client := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return json.NewDecoder(resp.Body).Decode(into)
	case http.StatusNotFound:
		return ErrNotFound
	}
	return fmt.Errorf("it answered %s", resp.Status)
}
