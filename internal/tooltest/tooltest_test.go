package tooltest_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/chancery-mesh/chancery/internal/tooltest"
)

// recorder tells how a test would have ended.
type recorder struct {
	testing.TB
	ended string
}

func (*recorder) Helper() {}

func (r *recorder) Skipf(string, ...any) { r.end("skipped") }

func (r *recorder) Fatalf(string, ...any) { r.end("failed") }

func (r *recorder) end(how string) {
	r.ended = how
	runtime.Goexit()
}

func TestPathOfHyphenatedName(t *testing.T) {
	t.Setenv("OIL_LAMP_PATH", "/bin/sh")
	if path := tooltest.Path(t, "oil-lamp", "fill one"); path != "/bin/sh" {
		t.Errorf("path %q", path)
	}
}

func TestPath(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	onPath, named := filepath.Join(dir, "lighthouse"), filepath.Join(t.TempDir(), "other")
	for _, file := range []string{onPath, named} {
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		program, variable, require string
		path, ended                string
	}{
		"on PATH":                     {program: "lighthouse", path: onPath},
		"named goes before PATH":      {program: "lighthouse", variable: named, path: named},
		"named and absent":            {program: "lighthouse", variable: "/nowhere", ended: "skipped"},
		"absent":                      {program: "submarine", ended: "skipped"},
		"absent, another is required": {program: "submarine", require: "submarines,lighthouse", ended: "skipped"},
		"absent, and required":        {program: "submarine", require: "lighthouse,submarine", ended: "failed"},
		"named, absent, and required": {program: "lighthouse", variable: "/nowhere", require: "lighthouse", ended: "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("LIGHTHOUSE_PATH", test.variable)
			t.Setenv("CHANCERY_REQUIRE", test.require)
			r, path := &recorder{TB: t}, ""
			done := make(chan struct{})
			go func() {
				defer close(done)
				path = tooltest.Path(r, test.program, "build one")
			}()
			<-done
			if path != test.path || r.ended != test.ended {
				t.Errorf("path %q, %q; want %q, %q", path, r.ended, test.path, test.ended)
			}
		})
	}
}
