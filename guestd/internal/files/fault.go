package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"syscall"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

// fault is a failure with its place on both wires.
type fault struct {
	status  int
	code    connect.Code
	message string
}

func (f *fault) Error() string { return f.message }

func invalid(format string, args ...any) *fault {
	return &fault{http.StatusBadRequest, connect.CodeInvalidArgument, fmt.Sprintf(format, args...)}
}

func unauthorised(message string) *fault {
	return &fault{http.StatusUnauthorized, connect.CodeUnauthenticated, message}
}

func missing(path string) *fault {
	return &fault{http.StatusNotFound, connect.CodeNotFound, fmt.Sprintf("path '%s' does not exist", path)}
}

func internal(format string, args ...any) *fault {
	return &fault{http.StatusInternalServerError, connect.CodeInternal, fmt.Sprintf(format, args...)}
}

func tooMuch(format string, args ...any) *fault {
	return &fault{http.StatusTooManyRequests, connect.CodeResourceExhausted, fmt.Sprintf(format, args...)}
}

// gone is for work that is not finished because its caller has left or its time is up.
func gone(err error) *fault {
	code := connect.CodeCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	return &fault{statusClientGone, code, "cannot go on: the caller has gone or its deadline has passed"}
}

// statusClientGone is what nginx made common for a client that closed its request.
const statusClientGone = 499

// faultOf finds the meaning of an error that the kernel gave for path.
func faultOf(err error, path string) *fault {
	var known *fault
	if errors.As(err, &known) {
		return known
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return internal("cannot work on '%s': %s", path, err)
	}
	switch errno {
	case syscall.ENOENT:
		return missing(path)
	case syscall.ENOSPC, syscall.EDQUOT:
		short := "not enough disk space available; remove files or use a larger disk"
		if hasNoInodes(path) {
			short = "not enough disk space available for another file (inodes); remove some files"
		}
		return &fault{http.StatusInsufficientStorage, connect.CodeResourceExhausted, fmt.Sprintf("cannot write '%s': %s", path, short)}
	case syscall.EMFILE, syscall.ENFILE:
		return tooMuch("cannot open '%s': guestd has as many files open (RLIMIT_NOFILE) as it may have; try again later", path)
	case syscall.ENOTDIR:
		return invalid("cannot use '%s': a part of it is not a directory", path)
	case syscall.EISDIR:
		return invalid("cannot use '%s' as a file: path is a directory", path)
	case syscall.EEXIST:
		return invalid("cannot make '%s': something else is there already", path)
	case syscall.ENAMETOOLONG:
		return invalid("cannot use '%.64s...': the path is too long", path)
	case syscall.ELOOP:
		return &fault{http.StatusBadRequest, connect.CodeFailedPrecondition, fmt.Sprintf(
			"cannot use '%s': too many levels of symbolic links", path)}
	case syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ETXTBSY:
		return &fault{http.StatusForbidden, connect.CodePermissionDenied, fmt.Sprintf("cannot work on '%s': %s", path, errno)}
	}
	return internal("cannot work on '%s': %s", path, errno)
}

// hasNoInodes says whether it is the number of files that has run out where path is, not the bytes.
func hasNoInodes(path string) bool {
	var found unix.Statfs_t
	return unix.Statfs(filepath.Dir(path), &found) == nil && found.Files > 0 && found.Ffree == 0
}

// rpcError is the form that Connect sends.
func rpcError(f *fault) error {
	return connect.NewError(f.code, errors.New(printable(f.message)))
}

// replyFault is the form that the HTTP routes send.
func replyFault(w http.ResponseWriter, f *fault) {
	body, err := json.Marshal(map[string]any{"code": f.status, "message": f.message})
	if err != nil {
		body = []byte(`{"code":500,"message":"cannot encode the error"}`)
	}
	header := w.Header()
	for _, name := range []string{"Content-Disposition", "Content-Encoding", "ETag", "Last-Modified", "Accept-Ranges"} {
		header.Del(name)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	_, _ = w.Write(body) // a client that has gone away is not our failure
}
