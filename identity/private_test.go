package identity_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chancery-mesh/chancery/identity"
)

func TestReadPrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		os.WriteFile(path("private"), []byte("secret"), 0o600),
		os.WriteFile(path("readable"), []byte("secret"), 0o600), os.Chmod(path("readable"), 0o640),
		os.WriteFile(path("writable"), []byte("secret"), 0o600), os.Chmod(path("writable"), 0o602),
		os.Symlink("private", path("link")),
		os.Mkdir(path("directory"), 0o700), syscall.Mkfifo(path("pipe"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"private": "", "link": "not a link", "readable": "mode 0600", "writable": "mode 0600",
		"directory": "mode 0600", "pipe": "mode 0600",
	} {
		data, err := identity.ReadPrivate(path(name))
		switch {
		case want == "" && (err != nil || string(data) != "secret"):
			t.Errorf("%s: %q, %v", name, data, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || data != nil):
			t.Errorf("%s: %q, %v, want %q", name, data, err, want)
		}
	}
	if _, err := identity.ReadPrivate(path("gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestPrivateDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		os.Mkdir(path("private"), 0o700), os.Mkdir(path("open"), 0o700), os.Chmod(path("open"), 0o710),
		os.Symlink("private", path("link")), os.WriteFile(path("file"), nil, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string]bool{"private": true, "new/one": true, "open": false, "link": false, "file": false} {
		if err := identity.PrivateDir(path(name)); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if info, err := os.Stat(path("new/one")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the new one: %v, %v", info, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	if err := os.Chown(path("private"), 65534, -1); err != nil {
		t.Fatal(err)
	}
	if err := identity.PrivateDir(path("private")); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("another user's: %v", err)
	}
}

func TestPeerProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	process, err := identity.PeerProcess(c)
	if err != nil || int(process.Pid) != os.Getpid() || int(process.Uid) != os.Geteuid() {
		t.Errorf("process %+v, %v", process, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if process, err := identity.PeerProcess(c); err == nil {
		t.Errorf("of a closed connection: %+v", process)
	}
}
