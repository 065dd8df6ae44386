package process

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

const (
	defaultKeepalive = 90 * time.Second
	maxKeepalive     = 24 * time.Hour
)

var errExpired = connect.NewError(connect.CodeDeadlineExceeded,
	errors.New("the process was killed: its time was up; ask for a longer timeout"))

// follower is where the events of a process go.
type follower struct {
	interval time.Duration
	expired  <-chan struct{} // ends the stream with deadline_exceeded; nil for never
	send     func(*processpb.ProcessEvent) error
}

// follow sends the start event, what came before, and everything up to the end.
func follow(ctx context.Context, p *process, sub *subscriber, before []*processpb.ProcessEvent, to follower) error {
	start := &processpb.ProcessEvent_StartEvent{Pid: p.pid}
	if err := to.send(&processpb.ProcessEvent{Event: &processpb.ProcessEvent_Start{Start: start}}); err != nil {
		return err
	}
	for _, event := range before {
		if err := to.send(event); err != nil {
			return err
		}
	}
	idle := time.NewTimer(to.interval)
	defer idle.Stop()
	for {
		var err error
		select {
		case event := <-sub.events:
			err = to.send(event)
		case <-idle.C:
			err = to.send(keepalive)
		case <-p.output.ended:
			return sendRest(p, sub, to)
		case <-to.expired:
			if err := sendQueued(sub, to); err != nil {
				return err
			}
			return errExpired
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		idle.Reset(to.interval)
	}
}

var keepalive = &processpb.ProcessEvent{
	Event: &processpb.ProcessEvent_Keepalive{Keepalive: &processpb.ProcessEvent_KeepAlive{}},
}

// sendRest sends what was queued before the process ended, and then how it ended.
func sendRest(p *process, sub *subscriber, to follower) error {
	if err := sendQueued(sub, to); err != nil {
		return err
	}
	select {
	case <-to.expired:
		return errExpired
	default:
	}
	return to.send(&processpb.ProcessEvent{Event: &processpb.ProcessEvent_End{End: p.output.end}})
}

func sendQueued(sub *subscriber, to follower) error {
	for {
		select {
		case event := <-sub.events:
			if err := to.send(event); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// keepaliveInterval reads the header with which clients ask for signs of life. What is not
// a positive number of seconds means the default.
func keepaliveInterval(header http.Header) time.Duration {
	seconds, err := strconv.ParseInt(header.Get("Keepalive-Ping-Interval"), 10, 64)
	if err != nil || seconds <= 0 {
		return defaultKeepalive
	}
	return min(time.Duration(min(seconds, int64(maxKeepalive/time.Second)))*time.Second, maxKeepalive)
}
