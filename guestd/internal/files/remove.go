package files

import (
	"context"
	"errors"
	"path/filepath"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem"
)

// Remove removes a path and all below it. A path that is not there is fine.
func (s *Service) Remove(ctx context.Context, req *connect.Request[filesystem.RemoveRequest]) (*connect.Response[filesystem.RemoveResponse], error) {
	if req.Msg.GetPath() == "" { // an empty path is the working directory everywhere else
		return nil, rpcError(invalid("cannot remove an empty path; say what to remove"))
	}
	_, path, err := s.locate(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	path = filepath.Clean(path)
	if path == "/" {
		return nil, rpcError(invalid("cannot remove '/'; kill the sandbox instead"))
	}
	if err := removeTree(ctx, path); err != nil {
		var known *fault
		if !errors.As(err, &known) {
			known = internal("cannot remove '%s': %s", path, reason(err))
		}
		return nil, rpcError(known)
	}
	return connect.NewResponse(&filesystem.RemoveResponse{}), nil
}
