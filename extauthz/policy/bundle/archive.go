package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/loader/filter"
)

const (
	// maxPacked and maxUnpacked bound a bundle, in bytes.
	maxPacked   = 16 << 20
	maxUnpacked = 64 << 20
	// maxEntries bounds what is in it.
	maxEntries = 10_000

	signatures = ".signatures.json"
)

// archive is an unpacked bundle, in memory. It implements
// [opabundle.DirectoryLoader] for OPA to read it.
type archive struct {
	entries []entry
	next    int
}

var _ opabundle.DirectoryLoader = (*archive)(nil)

// entry is a file; its path begins with a slash.
type entry struct {
	path    string
	content []byte
}

// unpack reads a tarball, bounded in all directions. It takes files and
// directories alone, by names that have one reading.
func unpack(data []byte) (*archive, error) {
	if len(data) > maxPacked {
		return nil, fmt.Errorf("it is larger than %d MiB", maxPacked>>20)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("it is not a gzipped tarball: %w", err)
	}
	limited := &io.LimitedReader{R: z, N: maxUnpacked}
	t := tar.NewReader(limited)
	a := &archive{}
	taken := map[string]bool{}
	for {
		header, err := t.Next()
		switch {
		case errors.Is(err, io.EOF) && limited.N > 0:
			return a, nil
		case limited.N <= 0:
			return nil, fmt.Errorf("it is larger than %d MiB when unpacked", maxUnpacked>>20)
		case err != nil:
			return nil, fmt.Errorf("it is not a gzipped tarball: %w", err)
		case header.Typeflag == tar.TypeDir, header.Typeflag == tar.TypeXGlobalHeader:
			continue
		case header.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("%.100q in it is neither a file nor a directory", header.Name)
		case len(a.entries) == maxEntries:
			return nil, fmt.Errorf("it has more than %d files", maxEntries)
		}
		name, ok := cleanName(header.Name)
		if !ok || taken[name] {
			return nil, fmt.Errorf("the name %.100q in it leads elsewhere, or is there twice", header.Name)
		}
		taken[name] = true
		content, err := io.ReadAll(t)
		if err != nil && limited.N > 0 {
			return nil, fmt.Errorf("it is not a gzipped tarball: %w", err)
		}
		a.entries = append(a.entries, entry{name, content})
	}
}

// cleanName returns a name as a path from the root, or false if it could be
// taken for another.
func cleanName(name string) (string, bool) {
	if strings.ContainsAny(name, "\\\x00") || strings.HasSuffix(name, "/") {
		return "", false
	}
	rest, relative := strings.CutPrefix(name, "./")
	if !relative {
		rest = strings.TrimPrefix(name, "/")
	}
	clean := path.Clean("/" + rest)
	return clean, clean == "/"+rest
}

// file returns the content of a file at the root.
func (a *archive) file(name string) ([]byte, bool) {
	for _, e := range a.entries {
		if e.path == "/"+name {
			return e.content, true
		}
	}
	return nil, false
}

// NextFile implements [opabundle.DirectoryLoader].
func (a *archive) NextFile() (*opabundle.Descriptor, error) {
	if a.next == len(a.entries) {
		return nil, io.EOF
	}
	e := a.entries[a.next]
	a.next++
	return opabundle.NewDescriptor(e.path, e.path, bytes.NewBuffer(e.content)), nil
}

// WithFilter implements [opabundle.DirectoryLoader].
func (a *archive) WithFilter(filter.LoaderFilter) opabundle.DirectoryLoader { return a }

// WithPathFormat implements [opabundle.DirectoryLoader].
func (a *archive) WithPathFormat(opabundle.PathFormat) opabundle.DirectoryLoader { return a }

// WithSizeLimitBytes implements [opabundle.DirectoryLoader].
func (a *archive) WithSizeLimitBytes(int64) opabundle.DirectoryLoader { return a }

// WithFollowSymlinks implements [opabundle.DirectoryLoader].
func (a *archive) WithFollowSymlinks(bool) opabundle.DirectoryLoader { return a }
