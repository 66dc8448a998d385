// Package commandsocket is where a process tells the commands of its own user
// about itself: HTTP on a Unix socket in its state directory.
package commandsocket

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

const name = "agent.sock"

// Serve answers questions to the process of a state directory until ctx ends.
func Serve(ctx context.Context, dir string, h http.Handler) error {
	listener, err := unixsocket.Listen(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Answer answers with JSON.
func Answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away
}

var (
	// ErrNotFound says that the process does not have what it was asked for.
	ErrNotFound = errors.New("it has no such thing")
	// ErrAnswered says that the process answered, and not with what it was asked
	// for.
	ErrAnswered = errors.New("it answered")
)

// Ask has the process of a state directory answer a question, a path. With a
// body, which may be nil, it is a POST.
func Ask(ctx context.Context, dir, question string, body, into any) error {
	req, err := newQuestion(ctx, question, body)
	if err == nil {
		err = do(req, filepath.Join(dir, name), into)
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
	return fmt.Errorf("%w %s", ErrAnswered, resp.Status)
}
