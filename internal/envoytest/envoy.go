package envoytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	"github.com/chancery-mesh/chancery/internal/lockedbuffer"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// Envoy is a running Envoy. It ends with the test; if that has failed by then,
// its configuration, statistics and log are kept or logged.
type Envoy struct {
	t     testing.TB
	cmd   *exec.Cmd
	admin *http.Client
	done  chan struct{}
	out   lockedbuffer.Buffer // standard output: the access log
	log   lockedbuffer.Buffer
}

// Start starts Envoy with bootstrap, whose admin interface must be a Unix
// socket, and waits until its listeners are up.
func Start(t testing.TB, bootstrap *bootstrapv3.Bootstrap) *Envoy {
	t.Helper()
	e := &Envoy{
		t:     t,
		admin: unixClient(bootstrap.GetAdmin().GetAddress().GetPipe().GetPath()),
		done:  make(chan struct{}),
	}
	e.cmd = exec.Command(Path(t), "--concurrency", "1", "--disable-hot-restart",
		"--log-level", "warning", "--drain-time-s", "1", "--file-flush-interval-msec", "50",
		"-c", writeConfig(t, bootstrap))
	e.cmd.Stdout, e.cmd.Stderr = &e.out, &e.log
	// A signal to the group reaches Envoy behind a wrapper, too.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.cmd.Start(); err != nil {
		t.Fatalf("start envoy: %v", err)
	}
	go func() {
		_ = e.cmd.Wait()
		close(e.done)
	}()
	t.Cleanup(e.stop)
	e.wait("ready", func() error {
		_, err := e.get("/ready")
		return err
	})
	return e
}

// Address returns where a listener listens, waiting until it does.
func (e *Envoy) Address(listener string) string {
	e.t.Helper()
	var address string
	e.wait("listener "+listener, func() error {
		body, err := e.get("/listeners?format=json")
		if err != nil {
			return err
		}
		address, err = listenerAddress(body, listener)
		return err
	})
	return address
}

func listenerAddress(body []byte, listener string) (string, error) {
	var answer struct {
		ListenerStatuses []struct {
			Name         string `json:"name"`
			LocalAddress struct {
				SocketAddress struct {
					Address   string `json:"address"`
					PortValue int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", err
	}
	for _, l := range answer.ListenerStatuses {
		if a := l.LocalAddress.SocketAddress; l.Name == listener && a.PortValue != 0 {
			return net.JoinHostPort(a.Address, strconv.Itoa(a.PortValue)), nil
		}
	}
	return "", fmt.Errorf("no listener %q in %s", listener, body)
}

// Stat returns a counter or gauge, 0 if there is none of that name.
func (e *Envoy) Stat(name string) int {
	e.t.Helper()
	body, err := e.get("/stats")
	if err != nil {
		e.t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && key == name {
			n, err := strconv.Atoi(value)
			if err != nil {
				e.t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// Await waits until a counter or gauge has at least that value.
func (e *Envoy) Await(stat string, atLeast int) {
	e.t.Helper()
	e.wait(stat, func() error {
		if n := e.Stat(stat); n < atLeast {
			return fmt.Errorf("%s is %d, want %d", stat, n, atLeast)
		}
		return nil
	})
}

// AccessLog waits for an entry of the access log with that request ID.
func (e *Envoy) AccessLog(requestID string) map[string]any {
	e.t.Helper()
	var entry map[string]any
	e.wait("access log of "+requestID, func() error {
		for line := range strings.Lines(e.out.String()) {
			var got map[string]any
			if json.Unmarshal([]byte(line), &got) == nil && got["request_id"] == requestID {
				entry = got
				return nil
			}
		}
		return errors.New("no such entry")
	})
	return entry
}

func (e *Envoy) wait(what string, try func() error) {
	e.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-e.done:
			e.t.Fatalf("envoy ended while waiting for %s: %v\n%s", what, err, e.log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("waited for %s: %v", what, err)
		}
	}
}

func (e *Envoy) get(path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := e.admin.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("admin %s: %s: %s", path, response.Status, body)
	}
	return body, err
}

func (e *Envoy) stop() {
	if e.t.Failed() {
		e.keep()
	}
	e.admin.CloseIdleConnections()
	_ = syscall.Kill(-e.cmd.Process.Pid, syscall.SIGKILL)
	<-e.done
}

// keep saves what explains a failure.
func (e *Envoy) keep() {
	e.t.Logf("envoy's log:\n%s", e.log.String())
	for _, page := range []string{"config_dump", "stats", "clusters"} {
		body, err := e.get("/" + page)
		if err != nil {
			e.t.Logf("keep %s: %v", page, err)
			continue
		}
		file := filepath.Join(e.t.ArtifactDir(), page)
		if err := os.WriteFile(file, body, 0o600); err != nil {
			e.t.Logf("keep %s: %v", page, err)
		}
	}
}

func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}
