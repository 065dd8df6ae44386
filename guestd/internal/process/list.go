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
	response := &processpb.ListResponse{}
	for _, p := range s.registry.running() {
		response.Processes = append(response.Processes,
			&processpb.ProcessInfo{Config: p.config, Pid: p.pid, Tag: p.tag})
	}
	return connect.NewResponse(response), nil
}
