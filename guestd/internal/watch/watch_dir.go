package watch

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem"
)

// WatchDir streams the changes of a directory until the client leaves. A client that is
// too slow to keep up gets resource_exhausted, not a stream with holes.
func (s *Service) WatchDir(ctx context.Context, req *connect.Request[filesystem.WatchDirRequest], stream *connect.ServerStream[filesystem.WatchDirResponse]) error {
	path, err := s.locate(req.Header(), req.Msg.GetPath())
	if err != nil {
		return err
	}
	w, err := s.open(path, options{req.Msg.GetRecursive(), req.Msg.GetIncludeEntry(), req.Msg.GetAllowNetworkMounts()})
	if err != nil {
		return err
	}
	defer s.close(w)
	if err := stream.Send(startMessage); err != nil {
		return err
	}
	interval := keepalive(req.Header())
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ended(ctx.Err())
		case <-ticker.C:
			if err := stream.Send(keepaliveMessage); err != nil {
				return err
			}
		case <-w.queue.ready:
			events, err := w.queue.take()
			if err != nil {
				return err
			}
			for _, event := range events {
				if err := stream.Send(&filesystem.WatchDirResponse{
					Event: &filesystem.WatchDirResponse_Filesystem{Filesystem: event},
				}); err != nil {
					return err
				}
			}
			ticker.Reset(interval)
		}
	}
}

var (
	startMessage = &filesystem.WatchDirResponse{
		Event: &filesystem.WatchDirResponse_Start{Start: &filesystem.WatchDirResponse_StartEvent{}},
	}
	keepaliveMessage = &filesystem.WatchDirResponse{
		Event: &filesystem.WatchDirResponse_Keepalive{Keepalive: &filesystem.WatchDirResponse_KeepAlive{}},
	}
)

func ended(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	return connect.NewError(connect.CodeCanceled, err)
}

// keepalive reads the interval that the client asks for, in seconds.
func keepalive(header http.Header) time.Duration {
	seconds, err := strconv.Atoi(header.Get("Keepalive-Ping-Interval"))
	if err != nil || seconds <= 0 {
		return defaultKeepalive
	}
	if seconds > int(maxKeepalive/time.Second) {
		return maxKeepalive
	}
	return time.Duration(seconds) * time.Second
}
