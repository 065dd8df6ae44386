package process

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
	"warren.dev/guestd/internal/pty"
)

// Update resizes a terminal.
func (s *Service) Update(
	_ context.Context, request *connect.Request[processpb.UpdateRequest],
) (*connect.Response[processpb.UpdateResponse], error) {
	p, err := s.find(request.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	done := connect.NewResponse(&processpb.UpdateResponse{})
	if request.Msg.GetPty() == nil {
		return done, nil
	}
	if p.master == nil {
		return nil, internal(errNoTerminal)
	}
	size := request.Msg.GetPty().GetSize()
	err = pty.Resize(p.master, pty.Size{Cols: size.GetCols(), Rows: size.GetRows()})
	if errors.Is(err, pty.ErrSize) {
		return nil, invalid(err)
	}
	if err != nil {
		return nil, internal(err)
	}
	return done, nil
}
