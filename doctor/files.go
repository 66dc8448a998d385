package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Files looks at everything in a state or run directory: all of it must belong
// to the directory's owner, and be closed to everybody else. What is public by
// intention is not looked at: the public keys for the application.
func Files(dir string) []Finding {
	top, err := os.Lstat(dir)
	if err != nil {
		return []Finding{problem(dir, "name the directory that the process is started with", "cannot be looked at: %v", err)}
	}
	owner := ownerOf(top)
	var found []Finding
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			found = append(found, problem(path, "run the doctor as the directory's owner, or as root", "cannot be looked at: %v", err))
			return nil
		}
		if public[entry.Name()] {
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) { // it came and went
			return nil
		}
		if err != nil {
			return err
		}
		found = append(found, file(path, info, owner)...)
		return nil
	})
	if err != nil {
		found = append(found, problem(dir, "run the doctor as the directory's owner, or as root", "cannot be looked at: %v", err))
	}
	return found
}

// public are the names of files that others are meant to read.
var public = map[string]bool{"passport-keys.json": true, "workload.sock": true}

func file(path string, info fs.FileInfo, owner uint32) []Finding {
	var found []Finding
	if mode := info.Mode(); mode&fs.ModeSymlink != 0 {
		found = append(found, problem(path, "rm "+path+", and restart the process", "is a symbolic link: what is written goes elsewhere"))
	} else if mode.Perm()&closed(mode) != 0 {
		found = append(found, problem(path, "chmod go= "+path, "others can use, read or write it: mode is %v", mode))
	}
	if uid := ownerOf(info); uid != owner {
		found = append(found, problem(path, "chown it to the directory's owner", "belongs to user %d, the directory to %d", uid, owner))
	}
	return found
}

// closed returns the permissions that nobody but the owner may have. Passing
// through a directory shows nothing that is closed itself.
func closed(mode fs.FileMode) fs.FileMode {
	if mode.IsDir() {
		return 0o066
	}
	return 0o077
}

func ownerOf(info fs.FileInfo) uint32 {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ^uint32(0)
	}
	return stat.Uid
}
