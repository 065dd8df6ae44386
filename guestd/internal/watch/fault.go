package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

func errorf(format string, args ...any) error {
	return errors.New(strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD"))
}

func exhausted(format string, args ...any) error {
	return connect.NewError(connect.CodeResourceExhausted, errorf(format, args...))
}

func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, errorf(format, args...))
}

func internal(format string, args ...any) error {
	return connect.NewError(connect.CodeInternal, errorf(format, args...))
}

func notFound(path string) error {
	return connect.NewError(connect.CodeNotFound, errorf("path '%s' does not exist", path))
}

// checkRoot makes sure that path is a directory whose changes the kernel can see: those
// made on another machine never show up.
func checkRoot(path string, allowNetwork bool) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return notFound(path)
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP):
		return invalid("cannot watch '%.64s': %s", path, errors.Unwrap(err))
	case err != nil:
		return internal("cannot watch '%s': %s", path, err)
	case !info.IsDir():
		return invalid("cannot watch '%s': path is not a directory", path)
	case !allowNetwork && onNetwork(path):
		return invalid("cannot watch '%s': it is on a network mount, where changes made elsewhere do not show; "+
			"set allow_network_mounts to watch it all the same", path)
	}
	return nil
}

func onNetwork(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && isNetworkFS(uint32(st.Type))
}

// isNetworkFS compares 32 bits: some of the numbers have their highest bit set, which
// statfs extends to 64 on some machines.
func isNetworkFS(magic uint32) bool {
	switch magic {
	case unix.NFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return true
	}
	return false
}
