package controlplane

import (
	"fmt"
	"os"
	"syscall"
)

// openRunDir makes the run directory if need be. Whoever may write to it could
// put a socket in the place of the administrators', so one that others may is
// refused.
func openRunDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write to %s (%v): chmod go-w %[1]s, or give another --run", dir, info.Mode())
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != uint32(os.Geteuid()) && stat.Uid != 0 {
		return fmt.Errorf("%s belongs to another user: chown it, or give another --run", dir)
	}
	return nil
}
