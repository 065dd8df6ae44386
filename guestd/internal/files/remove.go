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

// Remove removes a path and all below it. A path that is not there is fine.
func (s *Service) Remove(_ context.Context, req *connect.Request[filesystem.RemoveRequest]) (*connect.Response[filesystem.RemoveResponse], error) {
	_, path, err := s.locate(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	path = filepath.Clean(path)
	if path == "/" {
		return nil, rpcError(invalid("cannot remove '/'; kill the sandbox instead"))
	}
	if err := os.RemoveAll(path); err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return nil, rpcError(internal("cannot remove '%s': %s", path, reason(err)))
	}
	return connect.NewResponse(&filesystem.RemoveResponse{}), nil
}
