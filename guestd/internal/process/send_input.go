package process

import (
	"context"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

// SendInput writes to the standard input or the terminal of a process.
func (s *Service) SendInput(
	ctx context.Context, request *connect.Request[processpb.SendInputRequest],
) (*connect.Response[processpb.SendInputResponse], error) {
	p, err := s.find(request.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	if err := p.input.write(ctx, request.Msg.GetInput()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&processpb.SendInputResponse{}), nil
}
