package passport

import (
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// reloadInterval is how often a [File] looks for a newer version, at least; it
// does at once for a key that it does not know.
const reloadInterval = time.Second

// File is the [KeySource] of a file that somebody else keeps current: a JWK Set
// whose keys each have a member "owner". A version that cannot be read or
// parsed changes nothing.
type File struct {
	path string

	mu      sync.Mutex
	checked time.Time
	info    fs.FileInfo
	keys    KeySet
	err     error
}

// OpenFile reads path for the first time.
func OpenFile(path string) (*File, error) {
	f := &File{path: path}
	f.reload()
	return f, f.err
}

// Key implements [KeySource].
func (f *File) Key(id string) (Key, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key, ok := f.keys.Key(id)
	if ok && time.Since(f.checked) < reloadInterval {
		return key, true
	}
	f.reload() // a gateway signs with a new key as soon as it is in the file
	return f.keys.Key(id)
}

// Err says why the file's latest version is not in use, nil if it is.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *File) reload() {
	f.checked = time.Now()
	info, err := os.Stat(f.path)
	if err == nil && f.info != nil && os.SameFile(info, f.info) &&
		info.ModTime().Equal(f.info.ModTime()) && info.Size() == f.info.Size() {
		return
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(f.path)
	}
	var keys KeySet
	if err == nil {
		keys, err = ParseKeySet(data, "")
	}
	if f.err = err; err != nil {
		f.err = fmt.Errorf("read passport keys %q: %w", f.path, err)
		return
	}
	f.info, f.keys = info, keys
}
