package rego

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/chancery-mesh/chancery/mesh"
)

const (
	// maxBytes and maxFiles bound what is read of a directory.
	maxBytes = 64 << 20
	maxFiles = 10_000
	// maxDirs bounds how deep directories nest; symlinks may lead in circles.
	maxDirs = 16
)

// Read reads a policy as "opa run" does: one .rego file, or those of a directory
// and all directories below it, along with data: each .json, .yaml and .yml
// file holds an object, which goes to where its directory says (a/b/x.json to
// data.a.b). Hidden files and tests (_test.rego) are left out. The modules are of
// the given version; see [Module]. Faults are [mesh.Faults].
func Read(path string, version ast.RegoVersion) (Source, error) {
	files, err := readFiles(path)
	if err != nil {
		return Source{}, fmt.Errorf("read policy: %w", err)
	}
	source := Source{Data: map[string]any{}, Revision: revision(files)}
	var faults mesh.Faults
	for _, f := range files {
		if f.isModule() {
			source.Modules = append(source.Modules, Module{File: f.name, Text: string(f.content), Version: version})
		} else if err := addData(source.Data, f); err != nil {
			faults = append(faults, mesh.Fault{Position: mesh.Position{File: f.name}, Message: err.Error()})
		}
	}
	if len(faults) > 0 {
		return Source{}, faults
	}
	return source, nil
}

// file is one of a policy.
type file struct {
	name string
	// dirs are those between the policy's directory and the file.
	dirs    []string
	content []byte
}

func (f *file) isModule() bool { return strings.HasSuffix(f.name, ".rego") }

// revision names content, for people to compare.
func revision(files []file) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %d\n", f.name, len(f.content))
		h.Write(f.content)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// readFiles returns the files of a policy, in the order of their names.
func readFiles(path string) ([]file, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.IsDir() && !strings.HasSuffix(path, ".rego"):
		return nil, fmt.Errorf("%s is neither a directory nor a .rego file", path)
	}
	r := reader{left: maxBytes}
	if info.IsDir() {
		err = walk(path, nil, func(string) {}, r.read)
	} else {
		err = r.read(path, nil)
	}
	return r.files, err
}

// directories returns those to watch for changes of a policy.
func directories(path string) []string {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return []string{filepath.Dir(path)}
	}
	var dirs []string
	// What cannot be walked, reading complains of.
	_ = walk(path, nil, func(dir string) { dirs = append(dirs, dir) }, func(string, []string) error { return nil })
	return dirs
}

// walk calls onDir for a directory and all below it, and onFile for each file of
// a policy in them, with the names of the directories that lead there.
func walk(path string, below []string, onDir func(string), onFile func(path string, below []string) error) error {
	if len(below) > maxDirs {
		return fmt.Errorf("%s is more than %d directories deep: is there a symlink that leads in a circle?", path, maxDirs)
	}
	onDir(path)
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		at := filepath.Join(path, name)
		if name[0] == '.' {
			continue
		}
		info, err := os.Stat(at) // Kubernetes mounts files as symlinks
		switch {
		case err != nil:
		case info.IsDir():
			err = walk(at, append(slices.Clip(below), name), onDir, onFile)
		case info.Mode().IsRegular() && isSource(name):
			err = onFile(at, below)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reader reads files, bounded in their number and size.
type reader struct {
	files []file
	left  int64
}

func isSource(name string) bool {
	switch filepath.Ext(name) {
	case ".rego":
		return !strings.HasSuffix(name, "_test.rego")
	case ".json", ".yaml", ".yml":
		return true
	}
	return false
}

func (r *reader) read(path string, below []string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, r.left+1))
	r.left -= int64(len(content))
	switch {
	case err != nil:
		return err
	case r.left < 0:
		return fmt.Errorf("%s: the policy is larger than %d MiB", path, maxBytes>>20)
	case len(r.files) == maxFiles:
		return fmt.Errorf("%s: the policy has more than %d files", path, maxFiles)
	}
	r.files = append(r.files, file{path, below, content})
	return nil
}

// addData puts the object that a file holds into data.
func addData(data map[string]any, f file) error {
	decode := util.Unmarshal // YAML
	if filepath.Ext(f.name) == ".json" {
		decode = util.UnmarshalJSON
	}
	var v any
	if err := decode(f.content, &v); err != nil {
		return fmt.Errorf("is not %s: %w", strings.ToUpper(filepath.Ext(f.name)[1:]), err)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return errors.New("is not an object")
	}
	for _, name := range slices.Backward(f.dirs) {
		object = map[string]any{name: object}
	}
	return merge(data, object, nil)
}

// merge adds what is in from to what is in to, where neither is in the other's
// way.
func merge(to, from map[string]any, path []string) error {
	for name, v := range from {
		have, there := to[name]
		below, isObject := v.(map[string]any)
		haveBelow, haveObject := have.(map[string]any)
		switch {
		case !there:
			to[name] = v
		case isObject && haveObject:
			if err := merge(haveBelow, below, append(slices.Clip(path), name)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("data.%s is in another file, too", strings.Join(append(path, name), "."))
		}
	}
	return nil
}
