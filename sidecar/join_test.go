package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-mesh/chancery/identity"
	"github.com/chancery-mesh/chancery/sidecar"
)

// joined reports whether the agent has a certificate.
func joined(a *agent) func() error {
	return func() error {
		if id := a.Identity(); id.Certificate == nil {
			return errors.New(strings.Join(id.Problems, "; "))
		}
		return nil
	}
}

// hasProblem reports whether the agent speaks of something.
func hasProblem(a *agent, text string) func() error {
	return func() error {
		problems := strings.Join(a.Identity().Problems, "; ")
		if !strings.Contains(problems, text) {
			return fmt.Errorf("problems: %q", problems)
		}
		return nil
	}
}

func TestAgentJoinsOnceAndComesBackWithItsCertificate(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.start()
	a := newAgent(t, cp)
	a.start()
	eventually(t, "joined", joined(a))
	serial := a.Identity().Certificate.Serial
	a.stop()
	a.config.Join = sidecar.Join{}
	a.start()
	eventually(t, "connected with the certificate of before", func() error { return is(a.Status().ControlPlaneConnected, true) })
	joins, renewals := cp.counts()
	if got := a.Identity().Certificate.Serial; got != serial || joins != 1 || renewals != 0 {
		t.Errorf("after a restart: serial %s, was %s; %d joins, %d renewals", got, serial, joins, renewals)
	}
}

func TestJoinTokenFiles(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		write func(t *testing.T, path, token string)
		want  string // empty: joined
	}{
		"a line":        {writeToken("%s\n", 0o600), ""},
		"with spaces":   {writeToken("\n  %s \t\r\n", 0o600), ""},
		"missing":       {func(*testing.T, string, string) {}, "chancery token create"},
		"empty":         {writeToken("", 0o600), "it is empty"},
		"blank":         {writeToken(" \n\n", 0o600), "it is empty"},
		"too open":      {writeToken("%s\n", 0o640), "must be a file with mode 0600"},
		"two tokens":    {writeToken("%s\n%s\n", 0o600), "not one word"},
		"something big": {writeToken(strings.Repeat("a", 5000), 0o600), "not one word"},
		"not a token":   {writeToken("hunter2", 0o600), "no join token"},
		"truncated":     {writeToken("%.60s", 0o600), "no join token"},
		"a link": {func(t *testing.T, path, token string) {
			t.Helper()
			writeToken("%s", 0o600)(t, path+".elsewhere", token)
			check(t, os.Symlink(path+".elsewhere", path))
		}, "must be a file with mode 0600"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp := newControlPlane(t, public)
			cp.start()
			a := newAgent(t, cp)
			token := cp.token()
			a.config.Join = sidecar.Join{TokenFile: filepath.Join(t.TempDir(), "token")}
			test.write(t, a.config.Join.TokenFile, token)
			a.start()
			if test.want == "" {
				eventually(t, "joined", joined(a))
				return
			}
			eventually(t, "the problem is told", hasProblem(a, test.want))
			if problems := strings.Join(a.Identity().Problems, ""); strings.Contains(problems, token[:40]) || strings.Contains(problems, "hunter2") {
				t.Errorf("the token shows: %s", problems)
			}
			if n := cp.attempted(); n != 0 {
				t.Errorf("%d attempts to join", n)
			}
			// A good token that comes later is found.
			check(t, removeAll(a.config.Join.TokenFile))
			writeToken("%s", 0o600)(t, a.config.Join.TokenFile, token)
			eventually(t, "joined with a later token", joined(a))
		})
	}
}

// Whoever waits for what cannot come is told, and not kept waiting.
func TestAgentWithNothingToJoinWithEnds(t *testing.T) {
	t.Parallel()
	a := newAgent(t, newControlPlane(t, public))
	a.config.Join = sidecar.Join{Token: "\n"}
	agent, err := sidecar.New(a.config)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := agent.Run(ctx); err == nil || !strings.Contains(err.Error(), "no certificate") || !strings.Contains(err.Error(), "--join-token-file") {
		t.Error(err)
	}
}

// A token that is not there yet is said to be missing once, and not each time
// that it is looked for.
func TestMissingTokenIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		c := sidecar.NewCredentials(t.TempDir(), orders, newEnroller(t), slog.New(slog.NewTextHandler(&log, nil)))
		file := filepath.Join(t.TempDir(), "token")
		c.JoinWith(sidecar.Join{TokenFile: file})
		defer run(t, c)()
		sleep(time.Minute)
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "no file") {
			t.Errorf("%d errors in a minute without a token:\n%s", n, &log)
		}
		check(t, os.WriteFile(file, nil, 0o600))
		sleep(time.Minute)
		if n := strings.Count(log.String(), "level=ERROR"); n != 2 || !strings.Contains(log.String(), "it is empty") {
			t.Errorf("%d errors after a minute with an empty one:\n%s", n, &log)
		}
	})
}

// An agent gives its token to nobody but the control plane that the operator
// means.
func TestControlPlaneIsVerifiedBeforeAnythingIsTold(t *testing.T) {
	t.Parallel()
	bundle := func(t *testing.T, a *authority) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "bundle.pem")
		check(t, os.WriteFile(path, encodeRoots(a), 0o600))
		return path
	}
	for name, test := range map[string]struct {
		join func(t *testing.T, cp *controlPlane) sidecar.Join
		ok   bool
	}{
		"the token's root": {func(_ *testing.T, cp *controlPlane) sidecar.Join { return sidecar.Join{Token: cp.token()} }, true},
		"the bundle's root": {func(t *testing.T, cp *controlPlane) sidecar.Join {
			t.Helper()
			return sidecar.Join{Token: cp.token(), TrustBundle: bundle(t, cp.authority)}
		}, true},
		"a token of another mesh": {func(t *testing.T, _ *controlPlane) sidecar.Join {
			t.Helper()
			return sidecar.Join{Token: newAuthority(t).token()}
		}, false},
		"a bundle of another mesh, though the token is right": {func(t *testing.T, cp *controlPlane) sidecar.Join {
			t.Helper()
			return sidecar.Join{Token: cp.token(), TrustBundle: bundle(t, newAuthority(t))}
		}, false},
		"an empty bundle": {func(t *testing.T, cp *controlPlane) sidecar.Join {
			t.Helper()
			path := filepath.Join(t.TempDir(), "bundle.pem")
			check(t, os.WriteFile(path, nil, 0o600))
			return sidecar.Join{Token: cp.token(), TrustBundle: path}
		}, false},
		"Consul, and nothing to know the control plane by": {func(*testing.T, *controlPlane) sidecar.Join {
			return sidecar.Join{Consul: &sidecar.ConsulProof{ServiceID: "orders-1"}}
		}, false},
		"a workload in the place of the control plane": {func(_ *testing.T, cp *controlPlane) sidecar.Join {
			cp.own = cp.issue(identity.ID{Role: identity.RoleService, Name: "evil"})
			return sidecar.Join{Token: cp.token()}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp := newControlPlane(t, public)
			a := newAgent(t, cp)
			a.config.Join = test.join(t, cp)
			cp.start()
			a.start()
			if test.ok {
				eventually(t, "joined", joined(a))
				return
			}
			eventually(t, "it fails", hasProblem(a, "certificate renewal"))
			if n := cp.attempted(); n != 0 || joined(a)() == nil {
				t.Errorf("%d attempts to join, certificate %v", n, a.Identity().Certificate)
			}
		})
	}
}

// An agent that is refused and does not know why looks for a token all the time.
func TestRefusedAgentFindsItsTokenSoon(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.start()
	a := newAgent(t, cp)
	a.config.Join = sidecar.Join{TokenFile: filepath.Join(t.TempDir(), "token")}
	writeToken("%s", 0o600)(t, a.config.Join.TokenFile, cp.token())
	a.start()
	eventually(t, "connected", func() error { return is(a.Status().ControlPlaneConnected, true) })
	check(t, os.Remove(a.config.Join.TokenFile))
	serial := a.Identity().Certificate.Serial
	_, err := cp.ca.RevokeSerial(serial, "test") // and nobody is told
	check(t, err)
	cp.stop()
	cp.start()
	eventually(t, "it is refused", hasProblem(a, "the control plane refuses certificate"))
	writeToken("%s", 0o600)(t, a.config.Join.TokenFile, cp.token())
	eventually(t, "joined", func() error { return is(a.Identity().Certificate.Serial != serial, true) })
}

// A token that names a root does not bring back what was revoked under it.
func TestJoinKnowsWhatWasRevoked(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.start()
	a := newAgent(t, cp)
	a.start()
	stolen := cp.SVID()
	cp.replace()
	cp.revoke(stolen)
	eventually(t, "the revocation is known", func() error {
		if a.Identity().Trust == nil {
			return errors.New("no trust")
		}
		return is(a.Identity().Trust.Sequence, cp.ca.Trust().GetSequence())
	})
	a.stop()
	check(t, os.Remove(filepath.Join(a.config.StateDir, "svid.pem")))
	a.config.Join = sidecar.Join{Token: cp.token()}
	before, good := cp.attempted(), cp.SVID()
	cp.stop()
	cp.own = stolen
	cp.start()
	a.start()
	eventually(t, "it fails", hasProblem(a, "--trust-bundle"))
	if n := cp.attempted(); n != before {
		t.Errorf("%d attempts to join at a revoked control plane", n-before)
	}
	cp.stop()
	cp.own = good
	cp.start()
	eventually(t, "joined at the right one", joined(a))
}

// The answer is lost, and the agent dies before it can ask again: the token is
// bound to a key by then, which the next agent has.
func TestJoinIsRepeatedAfterACrash(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.start()
	a := newAgent(t, cp)
	cp.losing(1000)
	a.start()
	eventually(t, "the token is used", func() error { return is(cp.attempted() > 0, true) })
	a.stop()
	cp.losing(0)
	a.start()
	eventually(t, "joined with the same token", joined(a))
}

// A token that was refused is not tried over and over; another one is.
func TestRefusedTokenIsTriedOnce(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.start()
	a := newAgent(t, cp)
	a.config.Join = sidecar.Join{TokenFile: filepath.Join(t.TempDir(), "token")}
	spent := cp.token()
	cp.spend(spent, newKey(t).Public())
	writeToken("%s", 0o600)(t, a.config.Join.TokenFile, spent)
	a.start()
	eventually(t, "it is told", hasProblem(a, "the last one was refused"))
	if n := cp.attempted(); n != 1 {
		t.Errorf("%d attempts with a token that was refused", n)
	}
	writeToken("%s", 0o600)(t, a.config.Join.TokenFile, cp.token())
	eventually(t, "joined with a fresh token", joined(a))
}

// Whoever has a copy of the state directory is the workload until that is
// revoked. Then the operator gives the right one a fresh token, and the other
// stays out.
func TestStolenStateIsRevoked(t *testing.T) {
	t.Parallel()
	cp := newControlPlane(t, public)
	cp.start()
	right := newAgent(t, cp)
	right.config.Join = sidecar.Join{TokenFile: filepath.Join(t.TempDir(), "token")}
	writeToken("%s", 0o600)(t, right.config.Join.TokenFile, cp.token())
	right.start()
	eventually(t, "joined", func() error { return is(right.Status().ControlPlaneConnected, true) })
	serial := right.Identity().Certificate.Serial

	thief := newAgent(t, cp)
	thief.config.StateDir = filepath.Join(socketDir(t), "state")
	check(t, exec.Command("cp", "-a", right.config.StateDir, thief.config.StateDir).Run())
	thief.config.Join = right.config.Join
	thief.config.Join.TokenFile += ".old"
	check(t, exec.Command("cp", right.config.Join.TokenFile, thief.config.Join.TokenFile).Run())
	thief.start()
	eventually(t, "the copy is as good as the original", func() error { return is(thief.Status().ControlPlaneConnected, true) })

	_, err := cp.ca.RevokeSerial(serial, "stolen")
	check(t, err)
	cp.publishTrust()
	cp.credentials.Cut(func(p identity.Peer) bool { return p.Certificate != nil })
	for _, a := range []*agent{right, thief} {
		eventually(t, "it is out, and says so", hasProblem(a, "revoked"))
	}
	writeToken("%s", 0o600)(t, right.config.Join.TokenFile, cp.token())
	eventually(t, "the right one is in again", func() error {
		c := right.Identity().Certificate
		return errors.Join(is(c.Serial != serial, true), is(right.Status().ControlPlaneConnected, true))
	})
	time.Sleep(500 * time.Millisecond)
	if thief.Identity().Certificate.Serial != serial || thief.Status().ControlPlaneConnected {
		t.Error("the copy is in again")
	}
	if len(right.Identity().Problems) > 0 {
		t.Errorf("problems after all: %q", right.Identity().Problems)
	}
}

func writeToken(format string, mode os.FileMode) func(*testing.T, string, string) {
	return func(t *testing.T, path, token string) {
		t.Helper()
		text := strings.ReplaceAll(format, "%s", token)
		if strings.Contains(format, "%.60s") {
			text = token[:60]
		}
		check(t, os.WriteFile(path, []byte(text), 0o600))
		check(t, os.Chmod(path, mode))
	}
}

func removeAll(path string) error {
	return errors.Join(os.RemoveAll(path), os.RemoveAll(path+".elsewhere"))
}
