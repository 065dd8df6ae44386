package process_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

func TestOutputAndEndOfACommand(t *testing.T) {
	for _, codec := range []struct {
		name   string
		option connect.ClientOption
	}{{"json", connect.WithProtoJSON()}, {"binary", connect.WithClientOptions(connect.WithCodec(binaryCodec{}))}} {
		t.Run(codec.name, func(t *testing.T) {
			g := newGuest(t, codec.option)
			run := g.start(t, sh("echo out; echo err >&2; exit 3"), nil)
			got := run.wait()
			if run.err() != nil || got.stdout != "out\n" || got.stderr != "err\n" {
				t.Errorf("got %+v, %v", got, run.err())
			}
			if end := got.end; end.GetExitCode() != 3 || !end.GetExited() || end.GetStatus() != "exit status 3" || end.GetError() != "exit status 3" {
				t.Errorf("end %v", end)
			}
		})
	}
}

func TestSuccessHasNoError(t *testing.T) {
	got := newGuest(t).start(t, sh("true"), nil).wait()
	if got.end == nil || got.end.Error != nil || !got.end.GetExited() || got.end.GetStatus() != "exit status 0" {
		t.Errorf("end %v", got.end)
	}
}

func TestDeathByASignal(t *testing.T) {
	got := newGuest(t).start(t, sh("kill -KILL $$"), nil).wait()
	if end := got.end; end.GetExited() || end.GetExitCode() != -1 || end.GetStatus() != "signal: killed" || end.GetError() != "signal: killed" {
		t.Errorf("end %v", end)
	}
}

func TestCommandThatCannotRunLooksLikeAShellSaysIt(t *testing.T) {
	g := newGuest(t)
	plain := filepath.Join(g.home, "plain")
	write(t, plain, "not a program")
	for _, c := range []struct {
		cmd  string
		exit int32
		text string
	}{
		{"/no/such/program", 127, "guestd: cannot run '/no/such/program': no such file or directory\n"},
		{"surely-missing", 127, "guestd: cannot run 'surely-missing': no such file or directory\n"},
		{plain, 126, "guestd: cannot run '" + plain + "': permission denied\n"},
		{g.home, 126, "guestd: cannot run '" + g.home + "': permission denied\n"},
	} {
		run := g.start(t, &processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: c.cmd}}, nil)
		got := run.wait()
		if got.end.GetExitCode() != c.exit || got.stderr != c.text || run.pid == 0 {
			t.Errorf("%s: %+v", c.cmd, got)
		}
	}
}

func TestScriptWithoutInterpreterLineRunsInAShell(t *testing.T) {
	g := newGuest(t)
	script := filepath.Join(g.home, "script")
	write(t, script, "echo I am $1\n")
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	got := g.start(t, &processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: script, Args: []string{"here"}}}, nil).wait()
	if got.stdout != "I am here\n" {
		t.Errorf("got %+v", got)
	}
}

func TestRefusedStarts(t *testing.T) {
	g := newGuest(t)
	locked := filepath.Join(g.home, "locked")
	if err := os.Mkdir(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(g.home, "file")
	write(t, file, "")
	in := func(cwd string) *processpb.StartRequest {
		request := sh("true")
		request.Process.Cwd = &cwd
		return request
	}
	for _, c := range []struct {
		name    string
		request *processpb.StartRequest
		header  http.Header
		code    connect.Code
		text    string
	}{
		{"missing cwd", in("/nope"), nil, connect.CodeInvalidArgument, "cwd '/nope' does not exist"},
		{"cwd below a file", in(file + "/x"), nil, connect.CodeInvalidArgument, "does not exist"},
		{"cwd is a file", in(file), nil, connect.CodeInvalidArgument, "is not a directory"},
		{"cwd of another user", in("~other"), nil, connect.CodeInvalidArgument, "~other"},
		{"closed cwd", in(locked), asUser("guest"), connect.CodeInvalidArgument, "cwd"},
		{"unknown user", sh("true"), asUser("stranger"), connect.CodeUnauthenticated, "invalid username: 'stranger'"},
		{"no command", &processpb.StartRequest{}, nil, connect.CodeInvalidArgument, "set cmd"},
		{"NUL in args", &processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: "true", Args: []string{"\x00"}}}, nil, connect.CodeInvalidArgument, "NUL"},
		{"bad variable", &processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: "true", Envs: map[string]string{"a=b": ""}}}, nil, connect.CodeInvalidArgument, "a=b"},
		{"too many arguments", &processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: "true", Args: []string{strings.Repeat("x", 3<<20)}}}, nil, connect.CodeInvalidArgument, "argument list too long"},
		{"huge terminal", &processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: "true"}, Pty: &processpb.PTY{Size: &processpb.PTY_Size{Cols: 70000}}}, nil, connect.CodeInvalidArgument, "65535"},
	} {
		run := g.start(t, c.request, c.header)
		if run.pid != 0 {
			t.Errorf("%s: started", c.name)
		}
		wantCode(t, run.err(), c.code)
		if run.err() != nil && !contains(run.err().Error(), c.text) {
			t.Errorf("%s: %v", c.name, run.err())
		}
	}
	if left := openDescriptors(t); left > 60 {
		t.Errorf("%d descriptors are open", left)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestEnvironmentLayers(t *testing.T) {
	g := newGuest(t)
	g.setEnvs(map[string]string{"A": "sandbox", "B": "sandbox", "HOME": "/sandbox", "E2B_SANDBOX": "no"})
	request := sh("echo $A $B $HOME $USER $LOGNAME $E2B_SANDBOX ${TERM-none}")
	request.Process.Envs = map[string]string{"B": "request"}
	if got := g.start(t, request, asUser("guest")).wait(); got.stdout != "sandbox request /sandbox guest guest true none\n" {
		t.Errorf("got %q", got.stdout)
	}
	request.Process.Envs = map[string]string{"E2B_SANDBOX": "mine", "PATH": "/bin:/usr/bin"}
	if got := g.start(t, request, nil).wait(); !contains(got.stdout, " mine ") {
		t.Errorf("got %q", got.stdout)
	}
}

func TestUserOfACommand(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("changing users takes root")
	}
	g := newGuest(t)
	if got := g.start(t, sh("id -u; id -G"), asUser("guest")).wait(); got.stdout != "65534\n65534 777\n" {
		t.Errorf("got %+v", got)
	}
	if got := g.start(t, sh("id -u; id -G"), nil).wait(); got.stdout != "0\n0\n" {
		t.Errorf("got %+v", got)
	}
}

func TestWorkingDirectory(t *testing.T) {
	g := newGuest(t)
	if err := os.MkdirAll(filepath.Join(g.home, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for cwd, want := range map[string]string{"": g.home, "~": g.home, "~/sub": g.home + "/sub", "sub": g.home + "/sub", "/usr": "/usr"} {
		request := sh("pwd -P")
		request.Process.Cwd = &cwd
		if got := g.start(t, request, nil).wait(); got.stdout != want+"\n" {
			t.Errorf("cwd %q gives %q, want %q", cwd, got.stdout, want)
		}
	}
	g.setWorkdir("/usr")
	if got := g.start(t, sh("pwd -P"), nil).wait(); got.stdout != "/usr\n" {
		t.Errorf("default workdir gives %q", got.stdout)
	}
}

func TestBackgroundChildThatHoldsAPipeDelaysTheEnd(t *testing.T) {
	began := time.Now()
	got := newGuest(t).start(t, sh("(sleep 0.5; echo late) & echo early"), nil).wait()
	if took := time.Since(began); got.stdout != "early\nlate\n" || took < 400*time.Millisecond {
		t.Errorf("got %q after %v", got.stdout, took)
	}
}

func TestLifetimeKillsTheProcessAndEndsTheStream(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, sh("echo begun; sleep 60 & sleep 60"), http.Header{"Connect-Timeout-Ms": {"300"}})
	watcher := g.connect(t, byPid(run.pid), nil)
	got := run.wait()
	wantCode(t, run.err(), connect.CodeDeadlineExceeded)
	if got.stdout != "begun\n" || got.end != nil {
		t.Errorf("got %+v", got)
	}
	if seen := watcher.wait(); seen.end.GetStatus() != "signal: killed" || watcher.err() != nil {
		t.Errorf("the other stream got %+v, %v", seen, watcher.err())
	}
}

func TestLifetimeOutlastsTheClient(t *testing.T) {
	g := newGuest(t)
	ctx, cancel := context.WithCancel(t.Context())
	run := g.startIn(ctx, t, sh("sleep 60"), http.Header{"Connect-Timeout-Ms": {"400"}})
	cancel()
	if got := g.connect(t, byPid(run.pid), nil).wait(); got.end.GetStatus() != "signal: killed" {
		t.Errorf("got %+v", got)
	}
}

func TestTimeoutZeroIsNone(t *testing.T) {
	run := newGuest(t).start(t, sh("sleep 0.3; echo done"), http.Header{"Connect-Timeout-Ms": {"0"}})
	if got := run.wait(); got.stdout != "done\n" || run.err() != nil {
		t.Errorf("got %+v, %v", got, run.err())
	}
}

func TestMalformedTimeoutIsRefused(t *testing.T) {
	run := newGuest(t).start(t, sh("true"), http.Header{"Connect-Timeout-Ms": {"soon"}})
	wantCode(t, run.err(), connect.CodeInvalidArgument)
}

func TestClientMayLeaveAndTheProcessGoesOn(t *testing.T) {
	g := newGuest(t)
	done := filepath.Join(g.home, "done")
	ctx, cancel := context.WithCancel(t.Context())
	// More output than any pipe holds: with nobody listening it has to be read all the same.
	g.startIn(ctx, t, sh("sleep 0.2; head -c 3000000 /dev/zero; echo > "+done), nil)
	cancel()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(done); err == nil {
			return
		}
	}
	t.Error("the process did not go on")
}

func TestKeepaliveInQuietTimes(t *testing.T) {
	for header, want := range map[string]bool{"1": true, "0": false, "-5": false, "x": false} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			got := newGuest(t).start(t, sh("sleep 1.3"), http.Header{"Keepalive-Ping-Interval": {header}}).wait()
			if (got.keepalives > 0) != want || got.end == nil {
				t.Errorf("%d keepalives, end %v", got.keepalives, got.end)
			}
		})
	}
}

func TestEventsAreBounded(t *testing.T) {
	g := newGuest(t)
	run := g.start(t, sh("head -c 2000000 /dev/zero"), nil)
	total := 0
	for {
		event, ok := run.receive()
		if !ok {
			break
		}
		size := len(event.GetData().GetStdout())
		if size > 32<<10 {
			t.Fatalf("an event of %d bytes", size)
		}
		total += size
	}
	if total != 2000000 || run.err() != nil {
		t.Errorf("%d bytes, %v", total, run.err())
	}
}

func TestManyAtOnce(t *testing.T) {
	g := newGuest(t)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			run := g.start(t, sh(fmt.Sprintf("echo %d; exit %d", i, i)), nil)
			if got := run.wait(); got.stdout != fmt.Sprintf("%d\n", i) || got.end.GetExitCode() != int32(i) {
				t.Errorf("%d: %+v", i, got)
			}
		})
	}
	all.Wait()
}

func TestJournalKnowsCommandsButNoVariables(t *testing.T) {
	g := newGuest(t)
	request := sh("exit 4")
	request.Process.Envs = map[string]string{"SECRET": "hunter2"}
	g.start(t, request, nil).wait()
	text := fmt.Sprint(g.journal.After(0, 10))
	if !contains(text, "/bin/sh -c exit 4") || !contains(text, "exit_code:4") || contains(text, "hunter2") {
		t.Errorf("journal: %s", text)
	}
}
