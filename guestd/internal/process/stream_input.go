package process

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

// StreamInput writes each frame as it arrives. The first one names the process.
func (s *Service) StreamInput(
	ctx context.Context, stream *connect.ClientStream[processpb.StreamInputRequest],
) (*connect.Response[processpb.StreamInputResponse], error) {
	var p *process
	for stream.Receive() {
		switch frame := stream.Msg().GetEvent().(type) {
		case *processpb.StreamInputRequest_Start:
			found, err := s.find(frame.Start.GetProcess())
			if err != nil {
				return nil, err
			}
			p = found
		case *processpb.StreamInputRequest_Data:
			if p == nil {
				return nil, invalid(errors.New("cannot take data before the start frame; send that first"))
			}
			if err := p.input.write(ctx, frame.Data.GetInput()); err != nil {
				return nil, err
			}
		case *processpb.StreamInputRequest_Keepalive:
		default:
			return nil, invalid(errors.New("cannot read an empty frame; set start, data or keepalive"))
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&processpb.StreamInputResponse{}), nil
}
