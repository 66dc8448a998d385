package ca_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/chancery-mesh/chancery/identity/ca"
	"github.com/chancery-mesh/chancery/internal/chancerypb"
)

// live takes a CA through all that it writes, and tells the witness what was
// reported, as it is. It returns the first error; stubborn goes on after it.
func (w *witness) live(t *testing.T, cfg ca.Config, stubborn bool) error {
	t.Helper()
	authority, failed := ca.Open(cfg)
	if failed != nil && stubborn {
		authority = open(t, cfg)
	} else if failed != nil {
		return failed
	}
	defer authority.Close()
	for _, step := range w.steps(t, authority) {
		err := step()
		if err != nil {
			failed = err
		}
		if err != nil && !stubborn {
			return err
		}
		if err != nil {
			if err := authority.Expire(); err != nil {
				t.Errorf("Expire after %v: %v", failed, err)
			}
			if err := step(); errors.Is(err, ca.ErrCrash) {
				t.Errorf("after %v: %v", failed, err)
			}
		}
		w.trust = authority.Trust()
	}
	return failed
}

func (w *witness) steps(t *testing.T, authority *ca.CA) []func() error {
	t.Helper()
	first := authority.Authorities()[0].ID
	var parent ca.Certificate
	signed := func(req ca.Request) error {
		_, cert, err := authority.Sign(req)
		if err == nil {
			w.issued = append(w.issued, cert.Serial)
			parent = cert
		}
		return err
	}
	revoked := func(certs []ca.Certificate, err error) error {
		if err != nil {
			return err
		}
		for _, c := range certs {
			w.revoked = append(w.revoked, c.Serial)
		}
		return nil
	}
	newest := func() string { return authority.Authorities()[len(authority.Authorities())-1].ID }
	return []func() error{
		func() error { return signed(request(t, public)) },
		func() error { return signed(request(t, orders)) },
		func() error { return signed(renewal(t, parent)) },
		func() error { return revoked(authority.RevokeSerial(w.issued[1], "stolen")) },
		func() error { _, err := authority.Prepare(true); return err },
		func() error { return authority.Activate(newest()) },
		func() error { return signed(request(t, orders)) },
		func() error { return authority.Taint(first) },
		func() error { w.asked = append(w.asked, first); return authority.Revoke(first) },
		func() error { return revoked(authority.RevokeIdentity(orders, "")) },
		func() error { return authority.Expire() },
		func() error { return signed(request(t, public)) },
	}
}

// A crash at any operation on the disk, before it, in its middle or just
// after it, loses nothing that was reported.
func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	for _, part := range []float64{0, 0.5, 1} {
		for left, done := 0, false; !done; left++ {
			t.Run(fmt.Sprintf("%v of operation %d", part, left), func(t *testing.T) {
				cfg := config(t)
				w := &witness{}
				err := w.live(t, ca.OnDisk(cfg, &ca.BrittleDisk{Left: left, Part: part}), false)
				if done = err == nil; !done && !errors.Is(err, ca.ErrCrash) {
					t.Fatal(err)
				}
				w.assertKept(t, open(t, cfg))
			})
		}
	}
}

// An operation that fails, on a disk that was full for a moment, is an error
// to its caller alone: tried again, everything comes to the same end.
func TestDiskFailsOnce(t *testing.T) {
	t.Parallel()
	for left, done := 0, false; !done; left++ {
		t.Run(fmt.Sprintf("operation %d", left), func(t *testing.T) {
			cfg := config(t)
			w := &witness{}
			err := w.live(t, ca.OnDisk(cfg, &ca.BrittleDisk{Left: left, Part: 0.5, Spare: true}), true)
			if done = err == nil; !done && !errors.Is(err, ca.ErrCrash) {
				t.Fatal(err)
			}
			again := open(t, cfg)
			w.assertKept(t, again)
			var states []ca.State
			for _, a := range again.Authorities() {
				states = append(states, a.State)
			}
			if !slices.Equal(states, []ca.State{ca.Revoked, ca.Active}) || len(w.issued) != 5 || len(w.revoked) != 5 {
				t.Errorf("it came to %v, %d issued, %d revoked", states, len(w.issued), len(w.revoked))
			}
		})
	}
}

// The last line of the ledger may be torn at any byte: what was in it was
// never reported.
func TestLedgerTornAtEveryByte(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	authority := open(t, cfg)
	w := &witness{trust: authority.Trust()}
	_, first := sign(t, authority, request(t, orders))
	_, second := sign(t, authority, request(t, public))
	if _, err := authority.RevokeSerial(first.Serial, ""); err != nil {
		t.Fatal(err)
	}
	w.issued, w.revoked = []string{first.Serial, second.Serial}, []string{first.Serial}
	path := filepath.Join(cfg.Dir, "ledger")
	whole := readFile(t, path)
	sign(t, authority, request(t, orders))
	torn := readFile(t, path)
	if err := authority.Close(); err != nil {
		t.Fatal(err)
	}
	for size := len(whole); size < len(torn); size += 3 {
		if err := os.WriteFile(path, torn[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		again := open(t, cfg)
		w.assertKept(t, again)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that is killed, again and again, forgets nothing that it said.
func TestKill(t *testing.T) {
	t.Parallel()
	if os.Getenv("CHANCERY_TEST_CA_DIR") != "" {
		talk(t, ca.Config{Dir: os.Getenv("CHANCERY_TEST_CA_DIR"), TrustDomain: trustDomain})
		return
	}
	cfg := config(t)
	w := &witness{}
	for round := range 6 {
		w.hear(t, cfg.Dir, time.Duration(30+40*round)*time.Millisecond)
		authority := open(t, cfg)
		w.assertKept(t, authority)
		w.trust = authority.Trust()
		if err := authority.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.revoked) == 0 || len(w.trust.GetAuthorities()) == 0 || w.trust.GetSequence() < 10 {
		t.Errorf("the killed said too little: %d revoked, sequence %d", len(w.revoked), w.trust.GetSequence())
	}
}

// talk writes what a CA reports, until it is killed.
func talk(t *testing.T, cfg ca.Config) {
	t.Helper()
	authority := open(t, cfg)
	fmt.Println("talking")
	for {
		_, cert := sign(t, authority, request(t, orders))
		fmt.Println("issued", cert.Serial)
		if _, err := authority.RevokeSerial(cert.Serial, ""); err != nil {
			t.Fatal(err)
		}
		fmt.Println("revoked", cert.Serial)
		for _, a := range authority.Authorities() {
			step := map[ca.State]func(string) error{ca.Prepared: authority.Activate, ca.Old: authority.Taint, ca.Tainted: authority.Revoke}[a.State]
			if step == nil {
				continue
			}
			if a.State == ca.Tainted {
				fmt.Println("asked", a.ID)
			}
			if err := step(a.ID); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.ContainsFunc(authority.Authorities(), func(a ca.Authority) bool { return a.State == ca.Prepared }) {
			if _, err := authority.Prepare(false); err != nil {
				t.Fatal(err)
			}
		}
		trust, err := protojson.Marshal(authority.Trust())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("trust", string(trust))
	}
}

// hear runs a talking process, kills it after a while, and notes what it said.
func (w *witness) hear(t *testing.T, dir string, after time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "CHANCERY_TEST_CA_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // also a line that was cut: it was not said
		}
		w.note(t, strings.TrimSpace(line), func() {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		})
	}
	_ = cmd.Wait()
}

func (w *witness) note(t *testing.T, line string, begin func()) {
	t.Helper()
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "talking":
		begin()
	case "issued":
		w.issued = append(w.issued, rest)
	case "revoked":
		w.revoked = append(w.revoked, rest)
	case "asked":
		w.asked = append(w.asked, rest)
	case "trust":
		w.trust = &chancerypb.Trust{}
		if err := protojson.Unmarshal([]byte(rest), w.trust); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("it said %q", line)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
