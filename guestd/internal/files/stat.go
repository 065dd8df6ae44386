package files

import (
	"context"
	"errors"
	"syscall"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem"
)

// Stat describes one path.
func (s *Service) Stat(_ context.Context, req *connect.Request[filesystem.StatRequest]) (*connect.Response[filesystem.StatResponse], error) {
	_, path, err := s.locate(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	entry, err := s.entry(path)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, rpcError(missing(path)) // below a file there is nothing: "exists" wants a no
	}
	if err != nil {
		return nil, rpcError(faultOf(err, path))
	}
	return connect.NewResponse(&filesystem.StatResponse{Entry: entry}), nil
}
