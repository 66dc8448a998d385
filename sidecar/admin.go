package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-mesh/chancery/identity"
)

// admin speaks to Envoy's admin interface, which listens on a Unix socket.
type admin struct {
	socket string
	client *http.Client
}

func newAdmin(socket string) *admin {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &admin{socket: socket, client: &http.Client{
		Timeout:   2 * time.Second,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}
}

// drain has Envoy fail health checks and close its listeners gracefully.
func (a *admin) drain(ctx context.Context) error {
	_, failErr := a.do(ctx, http.MethodPost, "/healthcheck/fail")
	_, drainErr := a.do(ctx, http.MethodPost, "/drain_listeners?graceful")
	return errors.Join(failErr, drainErr)
}

// connections returns how many connections Envoy's listeners, but for the
// admin interface, have open.
func (a *admin) connections(ctx context.Context) (int, error) {
	text, err := a.do(ctx, http.MethodGet, "/stats?filter=%5Elistener%5C..%2Adownstream_cx_active%24")
	if err != nil {
		return 0, err
	}
	sum := 0
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("envoy's stats: %w", err)
		}
		if !strings.HasPrefix(name, "listener.admin.") {
			sum += n
		}
	}
	return sum, nil
}

// pid returns the number of the process whose admin interface answers.
func (a *admin) pid(ctx context.Context) (int, error) {
	if _, err := a.do(ctx, http.MethodGet, "/server_info"); err != nil {
		return 0, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	process, err := identity.PeerProcess(conn.(*net.UnixConn))
	if err != nil {
		return 0, err
	}
	return int(process.Pid), nil
}

func (a *admin) do(ctx context.Context, method, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("envoy's admin answered %s to %s", resp.Status, path)
	}
	return string(body), err
}
