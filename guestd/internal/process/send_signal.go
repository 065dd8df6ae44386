package process

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

// SendSignal ends a process together with everything in its process group.
func (s *Service) SendSignal(
	_ context.Context, request *connect.Request[processpb.SendSignalRequest],
) (*connect.Response[processpb.SendSignalResponse], error) {
	p, err := s.find(request.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	switch signal := request.Msg.GetSignal(); signal {
	case processpb.Signal_SIGNAL_SIGKILL:
		err = p.kill()
	case processpb.Signal_SIGNAL_SIGTERM:
		err = p.terminate()
	default:
		return nil, connect.NewError(connect.CodeUnimplemented,
			fmt.Errorf("cannot send %s; only SIGNAL_SIGKILL and SIGNAL_SIGTERM are known", signal))
	}
	if err != nil {
		return nil, internal(err)
	}
	return connect.NewResponse(&processpb.SendSignalResponse{}), nil
}
