package process

import (
	"context"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

// List names the running processes, oldest first.
func (s *Service) List(
	context.Context, *connect.Request[processpb.ListRequest],
) (*connect.Response[processpb.ListResponse], error) {
	return connect.NewResponse(&processpb.ListResponse{Processes: s.registry.list()}), nil
}
