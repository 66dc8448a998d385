package decisions_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/chancery-mesh/chancery/extauthz/decisions"
)

// Hashes stay the same from one start to the next, and a key that others can
// read, or that is too short, is no key.
func TestReadKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.key")
	key, err := decisions.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := decisions.ReadKey(path); err != nil || string(again) != string(key) || len(key) != 32 {
		t.Errorf("%x, then %x, %v", key, again, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := decisions.ReadKey(path); err == nil {
		t.Error("others can read it")
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 31)); err != nil {
		t.Fatal(err)
	}
	if _, err := decisions.ReadKey(path); err == nil {
		t.Error("it is short")
	}
}
