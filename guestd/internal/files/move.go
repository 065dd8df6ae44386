package files

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem"
)

// Move renames a path as rename(2) does, after making the parents of the destination.
func (s *Service) Move(_ context.Context, req *connect.Request[filesystem.MoveRequest]) (*connect.Response[filesystem.MoveResponse], error) {
	user, source, err := s.locate(req.Header(), req.Msg.GetSource())
	if err != nil {
		return nil, err
	}
	_, destination, err := s.locate(req.Header(), req.Msg.GetDestination())
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(source); err != nil {
		if errors.Is(err, syscall.ENOTDIR) {
			return nil, rpcError(missing(source))
		}
		return nil, rpcError(faultOf(err, source))
	}
	if _, err := ensureDir(filepath.Dir(filepath.Clean(destination)), user); err != nil {
		return nil, rpcError(internal("cannot make the parent of '%s': %s", destination, reason(err)))
	}
	// os.Rename refuses what rename(2) would do with an empty directory at the destination.
	if err := syscall.Rename(source, destination); err != nil {
		return nil, rpcError(moveFault(err, source, destination))
	}
	entry, err := s.entry(filepath.Clean(destination))
	if err != nil {
		return nil, rpcError(faultOf(err, destination))
	}
	return connect.NewResponse(&filesystem.MoveResponse{Entry: entry}), nil
}

func moveFault(err error, source, destination string) *fault {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return missing(source)
	case errors.Is(err, syscall.EXDEV):
		return internal("cannot move '%s' to '%s': they are on different file systems; copy and remove instead", source, destination)
	}
	return internal("cannot move '%s' to '%s': %s", source, destination, reason(err))
}

// reason is the kernel's own words for an error, without the path around it.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
