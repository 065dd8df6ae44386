package process

import (
	"context"
	"net/http"
	"strconv"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

// ReplayHeader is how a client asks for the latest output before the new one.
const ReplayHeader = "Warren-Replay-Bytes"

// Connect streams the events of a process that is running, or ended a moment ago.
func (s *Service) Connect(
	ctx context.Context,
	request *connect.Request[processpb.ConnectRequest],
	stream *connect.ServerStream[processpb.ConnectResponse],
) error {
	p, err := s.registry.find(request.Msg.GetProcess())
	if err != nil {
		return err
	}
	sub, before := p.output.subscribe(replayWanted(request.Header()))
	defer p.output.unsubscribe(sub)
	return follow(ctx, p, sub, before, follower{
		interval: keepaliveInterval(request.Header()),
		send: func(event *processpb.ProcessEvent) error {
			return stream.Send(&processpb.ConnectResponse{Event: event})
		},
	})
}

func replayWanted(header http.Header) int {
	wanted, err := strconv.Atoi(header.Get(ReplayHeader))
	if err != nil || wanted < 0 {
		return 0
	}
	return min(wanted, maxReplayBytes)
}
