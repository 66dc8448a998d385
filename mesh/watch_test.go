package mesh_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-mesh/chancery/mesh"
)

const ordersService = "---\nkind: Service\nname: orders\n"

func TestWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "mesh.yaml")
	w := startWatch(t, dir, time.Hour)
	w.next(t, "DIR: there is no Mesh document: write one with kind: Mesh, a name and a trustDomain")

	write(t, file, leastMesh)
	w.next(t, "0 services")
	write(t, file, leastMesh+ordersService)
	w.next(t, "1 services")

	write(t, file, "# why\n"+leastMesh+ordersService+"tier: system\n")
	w.none(t, "only a comment and a default were added")
	write(t, filepath.Join(dir, "notes.txt"), "x")
	w.none(t, "the file is no document")

	write(t, file, leastMesh+ordersService+"teir: system\n")
	w.next(t, `DIR/mesh.yaml:7:1: teir: is no key here: did you mean "tier"?`)
	write(t, file, leastMesh+ordersService+"teir: system \n")
	w.none(t, "the fault is the same")

	next := filepath.Join(dir, ".mesh.yaml.tmp")
	write(t, next, leastMesh)
	rename(t, next, file)
	w.next(t, "0 services")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.next(t, "DIR: there is no Mesh document: write one with kind: Mesh, a name and a trustDomain")
}

// A file that is written in pieces is read once, when it is whole.
func TestWatchSettles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := startWatch(t, dir, time.Hour)
	w.next(t, "DIR: there is no Mesh document: write one with kind: Mesh, a name and a trustDomain")
	f, err := os.Create(filepath.Join(dir, "mesh.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, piece := range []string{leastMesh, ordersService, "---\nkind: Service\nname: inventory\n"} {
		if _, err := f.WriteString(piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w.next(t, "2 services")
}

// Kubernetes swaps a link that all the files go through.
func TestWatchFollowsLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for revision, content := range map[string]string{"1": leastMesh, "2": leastMesh + ordersService} {
		if err := os.Mkdir(filepath.Join(dir, ".."+revision), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, ".."+revision, "mesh.yaml"), content)
	}
	symlink(t, "..1", filepath.Join(dir, "..data"))
	symlink(t, "..data/mesh.yaml", filepath.Join(dir, "mesh.yaml"))
	w := startWatch(t, dir, time.Hour)
	w.next(t, "0 services")
	symlink(t, "..2", filepath.Join(dir, "..data_tmp"))
	rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	w.next(t, "1 services")
}

// The directory itself may be swapped, go, and come back.
func TestWatchFollowsTheDirectory(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "current")
	for revision, content := range map[string]string{"1": leastMesh, "2": leastMesh + ordersService} {
		if err := os.Mkdir(filepath.Join(root, revision), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, revision, "mesh.yaml"), content)
	}
	symlink(t, "1", dir)
	w := startWatch(t, dir, 10*time.Millisecond)
	w.next(t, "0 services")
	symlink(t, "2", dir+".tmp")
	rename(t, dir+".tmp", dir)
	w.next(t, "1 services")
	write(t, filepath.Join(root, "2", "mesh.yaml"), leastMesh)
	w.next(t, "0 services")
	rename(t, dir, dir+".gone")
	w.next(t, "read documents: open DIR: no such file or directory")
	rename(t, dir+".gone", dir)
	w.next(t, "0 services")
}

type watched struct {
	dir     string
	results chan string
}

// startWatch runs Watch until the test ends, and sees to it that it ends, too.
func startWatch(t *testing.T, dir string, pollEvery time.Duration) watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := watched{dir, make(chan string)}
	done := make(chan error)
	go func() {
		config := mesh.WatchConfig{Dir: dir, PollEvery: pollEvery, Logger: slog.New(slog.DiscardHandler)}
		done <- mesh.Watch(ctx, config, func(_ mesh.Documents, m *mesh.Mesh, err error) {
			select {
			case w.results <- describe(dir, m, err):
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch returned %v", err)
		}
	})
	return w
}

func describe(dir string, m *mesh.Mesh, err error) string {
	if err != nil {
		return strings.ReplaceAll(err.Error(), dir, "DIR")
	}
	return fmt.Sprintf("%d services", len(m.Services))
}

// next waits for a result.
func (w watched) next(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-w.results:
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("nothing came, want %q", want)
	}
}

// none sees to it that nothing comes for several times as long as a change
// takes to settle.
func (w watched) none(t *testing.T, why string) {
	t.Helper()
	select {
	case got := <-w.results:
		t.Fatalf("got %q, but %s", got, why)
	case <-time.After(150 * time.Millisecond):
	}
}

func symlink(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
