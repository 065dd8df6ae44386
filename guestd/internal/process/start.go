package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/pty"
)

// journalCommandBytes is how much of a command line the journal keeps.
const journalCommandBytes = 512

// Start runs a command and streams its events. The process outlives the stream.
func (s *Service) Start(
	ctx context.Context,
	request *connect.Request[processpb.StartRequest],
	stream *connect.ServerStream[processpb.StartResponse],
) error {
	p, sub, err := s.start(ctx, request)
	if err != nil {
		return err
	}
	defer p.output.unsubscribe(sub)
	return follow(ctx, p, sub, nil, follower{
		interval: keepaliveInterval(request.Header()),
		expired:  p.expired,
		send: func(event *processpb.ProcessEvent) error {
			return stream.Send(&processpb.StartResponse{Event: event})
		},
	})
}

// start brings a process into being. The subscriber is there before the first byte is read.
func (s *Service) start(
	ctx context.Context, request *connect.Request[processpb.StartRequest],
) (*process, *subscriber, error) {
	set := s.state.Snapshot()
	user, err := s.accounts.ForRequest(request.Header(), set.DefaultUser)
	if err != nil {
		return nil, nil, connect.NewError(connect.CodeUnauthenticated, err)
	}
	cmd, err := newCommand(request.Msg.GetProcess(), user, set)
	if err != nil {
		return nil, nil, invalid(err)
	}
	if err := s.registry.reserve(); err != nil {
		return nil, nil, err
	}
	p, err := s.spawn(cmd, request.Msg)
	if err != nil {
		s.registry.free()
		return nil, nil, err
	}
	p.request = journal.Request(request.Header())
	sub, _ := p.output.subscribe(0)
	s.registry.add(p)
	s.noteStart(p, user)
	s.watch(ctx, p)
	return p, sub, nil
}

// spawn makes the process, or one that stands for a command that cannot be run.
func (s *Service) spawn(cmd *command, request *processpb.StartRequest) (*process, error) {
	io, err := openStdio(cmd.user, request)
	if errors.Is(err, pty.ErrSize) {
		return nil, invalid(err)
	}
	if err != nil {
		return nil, noStdio(err)
	}
	p := newProcess(request, io)
	p.killed = oomKilled()
	p.child, err = launch(s.reaper, cmd, io, s.relieve)
	var unrunnable *cannotRun
	if errors.As(err, &unrunnable) {
		p.fault = unrunnable
		p.pid = s.registry.ghostPid()
		return p, nil
	}
	if err != nil {
		io.closeOurs()
		return nil, err
	}
	p.pid = uint32(p.child.Pid())
	return p, nil
}

// noStdio names the limit that a command without pipes or a terminal has met.
func noStdio(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return connect.NewError(connect.CodeResourceExhausted, errors.New(
			"cannot open a terminal: the sandbox has as many terminals (PTYs) as it may have; close some first"))
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return tooManyFiles("start a process")
	}
	return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("cannot start a process: %w", err))
}

func tooManyFiles(what string) error {
	return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf(
		"cannot %s: guestd has as many files open (RLIMIT_NOFILE) as it may have; end some processes first", what))
}

func openStdio(user account.User, request *processpb.StartRequest) (*stdio, error) {
	if request.GetPty() != nil {
		size := request.GetPty().GetSize()
		return openTerminal(pty.Size{Cols: size.GetCols(), Rows: size.GetRows()}, user.UID)
	}
	return openPipes(request.Stdin == nil || request.GetStdin())
}

// watch follows the process to its end, and to the end of its lifetime if it has one.
func (s *Service) watch(ctx context.Context, p *process) {
	var timer *time.Timer
	if limit, ok := lifetime(ctx); ok {
		timer = time.AfterFunc(limit, p.expire)
	}
	began := time.Now()
	go p.supervise(s.kills, func(end *processpb.ProcessEvent_EndEvent) {
		if timer != nil {
			timer.Stop()
		}
		s.noteEnd(p, end, time.Since(began))
		p.output.finish(end)
		s.registry.retire(p)
	})
}

func (s *Service) noteStart(p *process, user account.User) {
	line := strings.Join(append([]string{p.config.GetCmd()}, p.config.GetArgs()...), " ")
	s.journal.Info("process", "process started", map[string]string{
		"command": journal.Cut(strings.ToValidUTF8(line, "?"), journalCommandBytes),
		"pid":     strconv.Itoa(int(p.pid)),
		"user":    user.Name,
		"request": p.request,
	})
}

func (s *Service) noteEnd(p *process, end *processpb.ProcessEvent_EndEvent, took time.Duration) {
	fields := map[string]string{
		"pid":         strconv.Itoa(int(p.pid)),
		"exit_code":   strconv.Itoa(int(end.GetExitCode())),
		"status":      end.GetStatus(),
		"duration_ms": strconv.FormatInt(took.Milliseconds(), 10),
		"request":     p.request,
	}
	if p.fault != nil {
		maps.Copy(fields, map[string]string{"reason": strings.TrimSpace(p.fault.reason)})
	}
	s.journal.Info("process", "process ended", fields)
}
