package files

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

func TestALimitOfTheSandboxIsNamed(t *testing.T) {
	for _, c := range []struct {
		err    syscall.Errno
		status int
		name   string
	}{
		{syscall.ENOSPC, http.StatusInsufficientStorage, "disk space"},
		{syscall.EDQUOT, http.StatusInsufficientStorage, "disk space"},
		{syscall.EMFILE, http.StatusTooManyRequests, "RLIMIT_NOFILE"},
	} {
		f := faultOf(&os.PathError{Op: "open", Path: "/tmp/x", Err: c.err}, "/tmp/x")
		if f.status != c.status || f.code != connect.CodeResourceExhausted || !strings.Contains(f.message, c.name) {
			t.Errorf("%v: %+v", c.err, f)
		}
	}
}

func TestADiskWithoutRoomForAnotherFileSaysSo(t *testing.T) {
	folder := t.TempDir()
	if err := unix.Mount("none", folder, "tmpfs", 0, "nr_inodes=2"); err != nil {
		t.Skip("needs to mount: ", err)
	}
	defer unix.Unmount(folder, 0)
	path := folder + "/first"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path = folder + "/second"
	if f := faultOf(os.WriteFile(path, nil, 0o600), path); !strings.Contains(f.message, "inodes") {
		t.Errorf("%+v", f)
	}
}
