package process

import (
	"context"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

// CloseStdin gives a process the end of its standard input.
func (s *Service) CloseStdin(
	ctx context.Context, request *connect.Request[processpb.CloseStdinRequest],
) (*connect.Response[processpb.CloseStdinResponse], error) {
	p, err := s.find(request.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	if err := p.input.closeStdin(ctx); err != nil {
		return nil, err
	}
	return connect.NewResponse(&processpb.CloseStdinResponse{}), nil
}
