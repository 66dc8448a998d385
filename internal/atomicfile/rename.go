package atomicfile

import (
	"os"
	"path/filepath"
)

// Rename moves a file within its directory. When it returns nil, the move is
// on disk.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}
