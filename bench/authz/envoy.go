package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	_ "embed"
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
	"sync/atomic"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chancery-mesh/chancery/passport"
)

// envoyConfig is a template.
//
//go:embed envoy.yaml
var envoyConfig string

// edges are the listeners of the Envoy: one without authorization, and one for
// each server that it asks.
var edges = []string{"none", serverNull, serverDecides, serverMints}

// envoy is one that runs.
type envoy struct {
	cmd *exec.Cmd
	dir string
	log bytes.Buffer
}

// findEnvoy returns the path of Envoy, empty if there is none.
func findEnvoy() string {
	path, err := exec.LookPath(cmp.Or(os.Getenv("ENVOY_PATH"), "envoy"))
	if err != nil {
		return ""
	}
	return path
}

// startEnvoy returns once all its listeners are there.
func (b *bench) startEnvoy(ctx context.Context, path string) (*envoy, error) {
	e := &envoy{dir: b.dir}
	var config bytes.Buffer
	err := template.Must(template.New("").Parse(envoyConfig)).Execute(&config, struct {
		Dir   string
		Edges []string
		Raw   bool
	}{b.dir, edges, b.raw})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.dir, "envoy.yaml")
	if err := os.WriteFile(file, config.Bytes(), 0o600); err != nil {
		return nil, err
	}
	e.cmd = exec.CommandContext(ctx, path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c", file)
	e.cmd.Stderr = &e.log
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	for range 500 {
		if err = e.tryDial(ctx); err == nil {
			return e, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("start envoy: %w", err), e.close())
}

// tryDial sees that all listeners accept connections: their sockets are there
// before they do.
func (e *envoy) tryDial(ctx context.Context) error {
	for _, edge := range edges {
		c, err := e.dial(ctx, edge)
		if err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// used returns the CPU time of all threads.
func (e *envoy) used() (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", e.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("CPU time of envoy: %w", cmp.Or(err, os.ErrNotExist))
	}
	var sum time.Duration
	for _, path := range threads {
		data, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		on, _, _ := strings.Cut(string(data), " ")
		ns, err := strconv.ParseInt(on, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

func (e *envoy) close() error {
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := e.cmd.Wait(); err != nil {
		const end = 1000
		log := e.log.String()
		return fmt.Errorf("envoy: %w: %s", err, log[max(0, len(log)-end):])
	}
	return nil
}

// clients of the Envoy, each with a connection of its own.
const clients = 64

// request returns what a client of the edge sends. Judged ones are told the
// Passport that would go on.
func (w *world) request(user int, judged bool) ([]byte, error) {
	token, err := w.token(user, false)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET /orders/%d?expand=items HTTP/1.1\r\nHost: api.shop.example\r\n", user)
	for _, h := range append(browser(), [2]string{"authorization", "Bearer " + token}) {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	if judged {
		b.WriteString("x-judged: yes\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes(), nil
}

// judgedOf is of how many requests through Envoy one has its Passport judged: that
// costs Envoy a header more, and is the same for all that are compared.
const judgedOf = 16

// edgeRequests are of all users that may read.
func (w *world) edgeRequests() (requests []*call, err error) {
	for i := range distinct {
		if name, group := user(i); group == "sales" {
			judged := len(requests)%judgedOf == 0
			data, err := w.request(i, judged)
			if err != nil {
				return nil, err
			}
			requests = append(requests, &call{request: data, status: http.StatusOK, user: name, judged: judged})
		}
	}
	return requests, nil
}

// drive sends requests for a while, one by one on each connection.
func (e *envoy) drive(ctx context.Context, edge string, requests []*call, turn time.Duration) ([]answer, error) {
	var next atomic.Int64
	end := time.Now().Add(turn)
	group, ctx := errgroup.WithContext(ctx)
	parts := make([][]answer, clients)
	for n := range clients {
		group.Go(func() error {
			c, err := e.dial(ctx, edge)
			if err != nil {
				return err
			}
			defer c.Close()
			for time.Now().Before(end) {
				a, err := c.ask(requests[int(next.Add(1))%len(requests)])
				if err != nil {
					return err
				}
				parts[n] = append(parts[n], a)
			}
			return nil
		})
	}
	err := group.Wait()
	var all []answer
	for _, part := range parts {
		all = append(all, part...)
	}
	return all, err
}

// client is a connection to an edge.
type client struct {
	net.Conn
	in *bufio.Reader
}

func (e *envoy) dial(ctx context.Context, edge string) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(e.dir, "edge-"+edge))
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn)}, nil
}

// ask returns an answer whose response is the Passport that it tells of.
func (c *client) ask(request *call) (answer, error) {
	a := answer{call: request}
	begin := time.Now()
	if _, err := c.Write(request.request); err != nil {
		return a, err
	}
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return a, err
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return a, err
	}
	a.took, a.http, a.response = time.Since(begin), r.StatusCode, []byte(r.Header.Get("x-passport"))
	return a, nil
}

// answered judges an edge, whose requests are all let through.
func answered(a answer) error {
	if a.http != a.call.status {
		return fmt.Errorf("%s: status %d instead of %d", a.user, a.http, a.call.status)
	}
	return nil
}

// answeredWith judges an edge whose requests go on with a Passport, too.
func answeredWith(v *passport.Verifier) judge {
	return func(a answer) error {
		if err := answered(a); err != nil || !a.judged {
			return err
		}
		p, err := v.Verify(string(a.response))
		if err == nil && p.Subject != a.user {
			err = fmt.Errorf("%s: Passport of %s", a.user, p.Subject)
		}
		return err
	}
}

// tryEdges sees that each edge does what it is there for: one request that it
// lets through, and one that it refuses.
func (b *bench) tryEdges(ctx context.Context, e *envoy, v *passport.Verifier) error {
	const reader, other = 1, 5 // whose group is another
	for _, edge := range edges {
		asks := edge == serverDecides || edge == serverMints
		c, err := e.dial(ctx, edge)
		if err != nil {
			return err
		}
		good, errGood := c.try(b.world, reader)
		bad, errBad := c.try(b.world, other)
		if err := errors.Join(errGood, errBad, c.Close()); err != nil {
			return fmt.Errorf("edge %q: %w", edge, err)
		}
		if good.http != http.StatusOK || asks != (bad.http == http.StatusForbidden) {
			return fmt.Errorf("edge %q answers %d and %d", edge, good.http, bad.http)
		}
		if edge != serverMints {
			continue
		}
		if p, err := v.Verify(string(good.response)); err != nil || p.Subject != good.user {
			return fmt.Errorf("edge %q sends on the Passport %v: %w", edge, p, err)
		}
	}
	return nil
}

func (c *client) try(w *world, of int) (answer, error) {
	name, _ := user(of)
	data, err := w.request(of, true)
	if err != nil {
		return answer{}, err
	}
	return c.ask(&call{request: data, user: name})
}
