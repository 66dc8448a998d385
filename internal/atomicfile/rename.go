package atomicfile

import (
	"os"
	"path/filepath"
)

// Rename moves a file within its directory. When it returns nil, the move and
// the file's content are on disk.
func Rename(from, to string) error {
	if err := flush(from); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return flush(filepath.Dir(to))
}
