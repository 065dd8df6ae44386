package process_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	processpb "warren.dev/guestd/gen/process"
	"warren.dev/guestd/internal/state"
)

// binaryCodec is the wire of clients that do not speak JSON.
type binaryCodec struct{}

func (binaryCodec) Name() string { return "proto" }
func (binaryCodec) Marshal(message any) ([]byte, error) {
	return proto.Marshal(message.(proto.Message))
}
func (binaryCodec) Unmarshal(data []byte, into any) error {
	return proto.Unmarshal(data, into.(proto.Message))
}

func (g *guest) setEnvs(envs map[string]string) {
	g.state.Change(func(set *state.Settings) { set.Envs = envs })
}

func (g *guest) setWorkdir(path string) {
	g.state.Change(func(set *state.Settings) { set.DefaultWorkdir = path })
}

func cat() *processpb.StartRequest {
	yes := true
	return &processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: "cat"}, Stdin: &yes}
}

func stdin(text string) *processpb.ProcessInput {
	return &processpb.ProcessInput{Input: &processpb.ProcessInput_Stdin{Stdin: []byte(text)}}
}

func keys(text string) *processpb.ProcessInput {
	return &processpb.ProcessInput{Input: &processpb.ProcessInput_Pty{Pty: []byte(text)}}
}

func shellOnTerminal() *processpb.StartRequest {
	return &processpb.StartRequest{
		Process: &processpb.ProcessConfig{Cmd: "/bin/sh"},
		Pty:     &processpb.PTY{Size: &processpb.PTY_Size{Cols: 90, Rows: 20}},
	}
}

func (g *guest) send(t *testing.T, pid uint32, what *processpb.ProcessInput) error {
	t.Helper()
	_, err := g.SendInput(deadline(t), connect.NewRequest(&processpb.SendInputRequest{Process: byPid(pid), Input: what}))
	return err
}

func (g *guest) closeStdin(t *testing.T, pid uint32) error {
	t.Helper()
	_, err := g.CloseStdin(deadline(t), connect.NewRequest(&processpb.CloseStdinRequest{Process: byPid(pid)}))
	return err
}

func (g *guest) signal(t *testing.T, selector *processpb.ProcessSelector, signal processpb.Signal) error {
	t.Helper()
	_, err := g.SendSignal(deadline(t), connect.NewRequest(&processpb.SendSignalRequest{Process: selector, Signal: signal}))
	return err
}

func TestInputReachesTheProcess(t *testing.T) {
	g := newGuest(t)
	request := cat()
	request.Process = &processpb.ProcessConfig{Cmd: "/bin/sh", Args: []string{"-c", "cat; sleep 0.3"}}
	run := g.start(t, request, nil)
	if err := g.send(t, run.pid, stdin("hello\n")); err != nil {
		t.Fatal(err)
	}
	run.until("hello\n")
	for range 2 { // the second one changes nothing
		if err := g.closeStdin(t, run.pid); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, g.send(t, run.pid, stdin("x")), connect.CodeInternal)
	if got := run.wait(); got.end.GetExitCode() != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestStdinModes(t *testing.T) {
	g := newGuest(t)
	legacy := cat()
	legacy.Stdin = nil
	run := g.start(t, legacy, nil)
	if err := g.send(t, run.pid, stdin("old")); err != nil {
		t.Errorf("absent field: %v", err)
	}
	run.until("old")
	no := false
	closed := &processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: "/bin/sh", Args: []string{"-c", "cat; sleep 60"}}, Stdin: &no}
	run = g.start(t, closed, nil)
	wantCode(t, g.send(t, run.pid, stdin("x")), connect.CodeInternal)
	wantCode(t, g.send(t, run.pid, keys("x")), connect.CodeInternal)
	wantCode(t, g.send(t, run.pid, nil), connect.CodeInvalidArgument)
}

func TestWriterIsNotHeldByAProcessThatDoesNotRead(t *testing.T) {
	g := newGuest(t)
	yes := true
	run := g.start(t, &processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: "sleep", Args: []string{"60"}}, Stdin: &yes}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	big := stdin(strings.Repeat("x", 1<<20))
	_, err := g.SendInput(ctx, connect.NewRequest(&processpb.SendInputRequest{Process: byPid(run.pid), Input: big}))
	wantCode(t, err, connect.CodeDeadlineExceeded)
	if err := g.closeStdin(t, run.pid); err != nil {
		t.Errorf("the turn was not given back: %v", err)
	}
}

func TestStreamInputAppliesFramesAsTheyArrive(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, cat(), nil)
	stream := g.StreamInput(deadline(t))
	frames := []*processpb.StreamInputRequest{
		{Event: &processpb.StreamInputRequest_Start{Start: &processpb.StreamInputRequest_StartEvent{Process: byPid(run.pid)}}},
		{Event: &processpb.StreamInputRequest_Keepalive{Keepalive: &processpb.StreamInputRequest_KeepAlive{}}},
		{Event: &processpb.StreamInputRequest_Data{Data: &processpb.StreamInputRequest_DataEvent{Input: stdin("one\n")}}},
	}
	for _, frame := range frames {
		if err := stream.Send(frame); err != nil {
			t.Fatal(err)
		}
	}
	run.until("one\n") // while the input stream is still open
	if _, err := stream.CloseAndReceive(); err != nil {
		t.Error(err)
	}
}

func TestStreamInputRefusesDataBeforeStart(t *testing.T) {
	stream := newGuest(t).StreamInput(deadline(t))
	_ = stream.Send(&processpb.StreamInputRequest{Event: &processpb.StreamInputRequest_Data{
		Data: &processpb.StreamInputRequest_DataEvent{Input: stdin("x")}}})
	_, err := stream.CloseAndReceive()
	wantCode(t, err, connect.CodeInvalidArgument)
}

func TestTerminal(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, shellOnTerminal(), nil)
	if err := g.send(t, run.pid, keys("stty size; tty\n")); err != nil {
		t.Fatal(err)
	}
	run.until("20 90")
	_, err := g.Update(deadline(t), connect.NewRequest(&processpb.UpdateRequest{
		Process: byPid(run.pid), Pty: &processpb.PTY{Size: &processpb.PTY_Size{Cols: 50, Rows: 10}}}))
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, g.send(t, run.pid, stdin("x")), connect.CodeInternal)
	if err := g.closeStdin(t, run.pid); err == nil || !contains(err.Error(), "Ctrl+D") {
		t.Errorf("got %v", err)
	}
	if err := g.send(t, run.pid, keys("stty size\nexit 5\n")); err != nil {
		t.Fatal(err)
	}
	if got := run.wait(); !contains(got.pty, "10 50") || got.end.GetExitCode() != 5 || got.stdout != "" {
		t.Errorf("got %+v", got)
	}
}

func TestTerminalBelongsToItsUser(t *testing.T) {
	request := shellOnTerminal()
	request.Process.Args = []string{"-c", "stat -c %u $(tty); : > $(tty) && echo opened"}
	got := newGuest(t).start(t, request, asUser("guest")).wait()
	if !contains(got.pty, "65534") || !contains(got.pty, "opened") {
		t.Errorf("got %+v", got)
	}
}

func TestResizeNeedsATerminal(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, cat(), nil)
	_, err := g.Update(deadline(t), connect.NewRequest(&processpb.UpdateRequest{Process: byPid(run.pid), Pty: &processpb.PTY{}}))
	wantCode(t, err, connect.CodeInternal)
}

func TestKillReachesTheWholeGroup(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, sh("sh -c 'echo $$; sleep 60 & wait' & sh -c 'echo $$; sleep 60' & wait"), nil)
	began := time.Now()
	run.until("\n")
	if err := g.signal(t, byPid(run.pid), processpb.Signal_SIGNAL_SIGKILL); err != nil {
		t.Fatal(err)
	}
	got := run.wait()
	if got.end.GetStatus() != "signal: killed" || time.Since(began) > patience/2 {
		t.Errorf("got %+v", got)
	}
}

func TestKillReachesTheJobsOfATerminal(t *testing.T) {
	g := newGuest(t)
	request := shellOnTerminal()
	request.Process.Cmd, request.Process.Args = "/bin/bash", []string{"--norc", "-i"}
	run := g.start(t, request, nil)
	// An odd number, to be known again among the processes of the machine.
	if err := g.send(t, run.pid, keys("sleep 61.0417 & sleep 61.0417 & echo rea''dy\n")); err != nil {
		t.Fatal(err)
	}
	run.until("ready")
	if err := g.signal(t, byPid(run.pid), processpb.Signal_SIGNAL_SIGKILL); err != nil {
		t.Fatal(err)
	}
	run.wait()
	left := func() int {
		got := g.start(t, sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 61[.]0417'"), nil).wait()
		count, _ := strconv.Atoi(strings.TrimSpace(got.stdout))
		return count
	}
	for end := time.Now().Add(patience); left() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("background jobs are left")
		}
	}
}

func TestShutdownForcesWhatDoesNotListen(t *testing.T) {
	g := newGuest(t)
	polite := g.start(t, sh("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"), nil)
	polite.until("up")
	deaf := g.start(t, sh("trap '' TERM; echo up; while :; do sleep 0.05; done"), nil)
	deaf.until("up")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	g.service.Shutdown(ctx)
	if got := polite.wait(); got.end.GetExitCode() != 3 || !contains(got.stdout, "bye") {
		t.Errorf("got %+v", got)
	}
	if got := deaf.wait(); got.end.GetStatus() != "signal: killed" {
		t.Errorf("got %+v", got)
	}
}

func TestKilledProcessDoesNotWaitForWhatEscaped(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, sh("setsid sleep 3 & echo ready; sleep 60"), nil)
	run.until("ready")
	began := time.Now()
	if err := g.signal(t, byPid(run.pid), processpb.Signal_SIGNAL_SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := run.wait(); got.end.GetStatus() != "signal: terminated" || time.Since(began) > 2*time.Second {
		t.Errorf("got %+v after %v", got, time.Since(began))
	}
}

func TestSignalsOfUnknownProcessesAndKinds(t *testing.T) {
	g := newGuest(t)
	err := g.signal(t, byPid(4194000), processpb.Signal_SIGNAL_SIGKILL)
	wantCode(t, err, connect.CodeNotFound)
	if !contains(err.Error(), "process with pid 4194000 not found") {
		t.Errorf("got %v", err)
	}
	wantCode(t, g.signal(t, &processpb.ProcessSelector{}, processpb.Signal_SIGNAL_SIGKILL), connect.CodeInvalidArgument)
	run := g.start(t, cat(), nil)
	wantCode(t, g.signal(t, byPid(run.pid), processpb.Signal_SIGNAL_UNSPECIFIED), connect.CodeUnimplemented)
	wantCode(t, g.signal(t, byPid(run.pid), processpb.Signal(2)), connect.CodeUnimplemented)
}

func TestListAndTags(t *testing.T) {
	g := newGuest(t)
	tags := []string{"first", "second"}
	var runs []*events
	for _, tag := range tags {
		request := cat()
		request.Tag = &tag
		runs = append(runs, g.start(t, request, nil))
	}
	list, err := g.List(deadline(t), connect.NewRequest(&processpb.ListRequest{}))
	if err != nil || len(list.Msg.GetProcesses()) != 2 {
		t.Fatalf("got %v, %v", list, err)
	}
	for i, info := range list.Msg.GetProcesses() {
		if info.GetTag() != tags[i] || info.GetPid() != runs[i].pid || info.GetConfig().GetCmd() != "cat" {
			t.Errorf("got %v", info)
		}
	}
	if other := g.connect(t, byTag("second"), nil); other.pid != runs[1].pid {
		t.Errorf("found %d by tag", other.pid)
	}
	if err := g.signal(t, byTag("first"), processpb.Signal_SIGNAL_SIGKILL); err != nil {
		t.Fatal(err)
	}
	runs[0].wait()
	list, _ = g.List(deadline(t), connect.NewRequest(&processpb.ListRequest{}))
	if len(list.Msg.GetProcesses()) != 1 {
		t.Errorf("an ended process is still listed: %v", list.Msg)
	}
	wantCode(t, g.signal(t, byTag("first"), processpb.Signal_SIGNAL_SIGKILL), connect.CodeNotFound)
}

func TestTwoListenersGetEverything(t *testing.T) {
	g := newGuest(t)
	yes := true
	first := g.start(t, &processpb.StartRequest{
		Process: &processpb.ProcessConfig{Cmd: "/bin/sh", Args: []string{"-c", "read x; seq 1 20000"}}, Stdin: &yes}, nil)
	second := g.connect(t, byPid(first.pid), nil)
	if err := g.send(t, first.pid, stdin("go\n")); err != nil {
		t.Fatal(err)
	}
	results := make(chan result)
	for _, stream := range []*events{first, second} {
		go func() { results <- stream.wait() }()
	}
	for range 2 {
		got := <-results
		if lines := strings.Count(got.stdout, "\n"); lines != 20000 || got.end == nil {
			t.Errorf("%d lines, end %v", lines, got.end)
		}
	}
}

func TestEndedProcessCanStillBeConnectedTo(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, sh("echo before; exit 6"), nil)
	run.wait()
	late := g.connect(t, byPid(run.pid), nil)
	if got := late.wait(); late.pid != run.pid || got.end.GetExitCode() != 6 || got.stdout != "" {
		t.Errorf("got %+v", got)
	}
	replayed := g.connect(t, byPid(run.pid), http.Header{"Warren-Replay-Bytes": {"100"}})
	if got := replayed.wait(); got.stdout != "before\n" || got.end == nil {
		t.Errorf("got %+v", got)
	}
	wantCode(t, g.send(t, run.pid, stdin("x")), connect.CodeNotFound)
	missing := g.connect(t, byPid(4194000), nil)
	wantCode(t, missing.err(), connect.CodeNotFound)
}

func TestReplayComesBeforeNewOutputWithoutAGap(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, cat(), nil)
	if err := g.send(t, run.pid, stdin("one ")); err != nil {
		t.Fatal(err)
	}
	run.until("one ")
	late := g.connect(t, byPid(run.pid), http.Header{"Warren-Replay-Bytes": {"3"}})
	if err := g.send(t, run.pid, stdin("two")); err != nil {
		t.Fatal(err)
	}
	if got := late.until("two"); got != "ne two" {
		t.Errorf("got %q", got)
	}
}

func TestSlowListenerHoldsTheProcess(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, sh("head -c 50000000 /dev/zero; echo end >&2"), nil)
	// Nobody reads for a while: 50 MB fit into no buffer on the way, so the process waits.
	time.Sleep(300 * time.Millisecond)
	list, err := g.List(deadline(t), connect.NewRequest(&processpb.ListRequest{}))
	if err != nil || len(list.Msg.GetProcesses()) != 1 {
		t.Errorf("the process did not wait: %v, %v", list, err)
	}
	if err := g.signal(t, byPid(run.pid), processpb.Signal_SIGNAL_SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Killed, it ends although its listener never read; that one learns it when it does.
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		list, err := g.List(deadline(t), connect.NewRequest(&processpb.ListRequest{}))
		if err == nil && len(list.Msg.GetProcesses()) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the killed process is still held by its listener")
		}
	}
	if got := run.wait(); got.end.GetStatus() != "signal: killed" {
		t.Errorf("end %v", got.end)
	}
}
