package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"warren.dev/guestd/internal/account"
)

const newFileMode = 0o644

// place is where an uploaded file goes.
type place struct {
	shown   string // as the request has it
	final   string // after all links
	mode    os.FileMode
	exists  bool
	inPlace bool // a device, pipe or kernel file: written to, never replaced
}

// findPlace follows links as writing through them would, and makes the parents.
func findPlace(path string, user account.User) (place, error) {
	path = filepath.Clean(path)
	if _, err := ensureDir(filepath.Dir(path), user); err != nil {
		return place{}, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		final, err := danglingTarget(path)
		return place{shown: path, final: final, mode: newFileMode}, err
	}
	if err != nil {
		return place{}, err
	}
	if info.IsDir() {
		return place{}, invalid("cannot write '%s': path is a directory", path)
	}
	final, err := filepath.EvalSymlinks(path)
	if err != nil {
		// Links of /proc such as /proc/self/fd/1 lead where no path does.
		return place{shown: path, final: path, exists: true, inPlace: true}, nil
	}
	special := !info.Mode().IsRegular() || isKernelFile(final)
	return place{shown: path, final: final, mode: info.Mode().Perm(), exists: true, inPlace: special}, nil
}

// maxLinks is the kernel's own bound on the links of one path.
const maxLinks = 40

// danglingTarget follows the links at the end of a path that leads to no file yet.
func danglingTarget(path string) (string, error) {
	for range maxLinks {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		target, err := os.Readlink(path)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", &fs.PathError{Op: "readlink", Path: path, Err: syscall.ELOOP}
}

// isKernelFile: the files of these file systems say that they are regular, but nothing
// can be renamed over them and their size means nothing.
func isKernelFile(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && isKernelFS(int64(st.Type))
}

func isKernelFS(magic int64) bool {
	switch magic {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC,
		unix.BINFMTFS_MAGIC, unix.NSFS_MAGIC:
		return true
	}
	return false
}
