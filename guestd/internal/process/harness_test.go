package process_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
	"warren.dev/guestd/gen/process/processconnect"
	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/files"
	"warren.dev/guestd/internal/identity"
	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/keepsake"
	"warren.dev/guestd/internal/leaktest"
	"warren.dev/guestd/internal/metrics"
	"warren.dev/guestd/internal/ports"
	"warren.dev/guestd/internal/process"
	"warren.dev/guestd/internal/reap"
	"warren.dev/guestd/internal/server"
	"warren.dev/guestd/internal/state"
)

// patience is far more than any of these takes; it keeps a broken test from hanging.
const patience = 20 * time.Second

// reaper is shared: a process can have only one that waits for children.
var reaper = reap.New()

func TestMain(m *testing.M) { leaktest.Main(m, reaper.Close) }

// guest is a whole daemon in this process, with users of its own.
type guest struct {
	processconnect.ProcessClient
	service *process.Service
	state   *state.State
	journal *journal.Journal
	home    string
	url     string
}

func newGuest(t *testing.T, options ...connect.ClientOption) *guest {
	t.Helper()
	etc := t.TempDir()
	if err := os.Chmod(filepath.Dir(etc), 0o755); err != nil { // closed to other users otherwise
		t.Fatal(err)
	}
	home := filepath.Join(etc, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(etc, "passwd"), "root:x:0:0::"+home+":/bin/sh\nguest:x:65534:65534::"+home+":/bin/sh\n")
	write(t, filepath.Join(etc, "group"), "root:x:0:\nguest:x:65534:\nextra:x:777:guest\n")
	st, log := state.New(), journal.New(time.Now)
	book := account.New(filepath.Join(etc, "passwd"), filepath.Join(etc, "group"))
	processes := process.New(st, book, reaper, log)
	web := httptest.NewServer(server.Handler(server.Parts{
		State: st, Process: processes, Files: files.New(st, book, log), Tunnel: ports.New(), Journal: log,
		Metrics: metrics.New("", "/", time.Now), Identity: identity.NewWriter(etc, filepath.Join(etc, "run")),
		Keepsake: keepsake.New(filepath.Join(etc, "keep")),
	}))
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // no patience with what a test left running
		processes.Shutdown(ctx)
		web.Close()
	})
	options = append([]connect.ClientOption{connect.WithProtoJSON()}, options...)
	return &guest{
		ProcessClient: processconnect.NewProcessClient(web.Client(), web.URL, options...),
		service:       processes, state: st, journal: log, home: home, url: web.URL,
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(patience, cancel)
	t.Cleanup(func() { timer.Stop(); cancel() })
	return ctx
}

// sh is a request that runs a script, without a pipe for its input.
func sh(script string) *processpb.StartRequest {
	no := false
	return &processpb.StartRequest{
		Process: &processpb.ProcessConfig{Cmd: "/bin/sh", Args: []string{"-c", script}},
		Stdin:   &no,
	}
}

func asUser(name string) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"))}}
}

// events is one stream of a process, either of Start or of Connect.
type events struct {
	t       *testing.T
	pid     uint32
	receive func() (*processpb.ProcessEvent, bool)
	err     func() error
	close   func() error
}

func (g *guest) start(t *testing.T, message *processpb.StartRequest, header http.Header) *events {
	t.Helper()
	return g.startIn(deadline(t), t, message, header)
}

func (g *guest) startIn(ctx context.Context, t *testing.T, message *processpb.StartRequest, header http.Header) *events {
	t.Helper()
	request := connect.NewRequest(message)
	for name, values := range header {
		request.Header()[name] = values
	}
	stream, err := g.Start(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	e := &events{t: t, err: stream.Err, close: stream.Close, receive: func() (*processpb.ProcessEvent, bool) {
		if !stream.Receive() {
			return nil, false
		}
		return stream.Msg().GetEvent(), true
	}}
	return e.begin()
}

func (g *guest) connect(t *testing.T, selector *processpb.ProcessSelector, header http.Header) *events {
	t.Helper()
	request := connect.NewRequest(&processpb.ConnectRequest{Process: selector})
	for name, values := range header {
		request.Header()[name] = values
	}
	stream, err := g.Connect(deadline(t), request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	e := &events{t: t, err: stream.Err, close: stream.Close, receive: func() (*processpb.ProcessEvent, bool) {
		if !stream.Receive() {
			return nil, false
		}
		return stream.Msg().GetEvent(), true
	}}
	return e.begin()
}

// begin takes the start event when there is one; a refused call shows at the first read.
func (e *events) begin() *events {
	event, ok := e.receive()
	if !ok {
		return e
	}
	if event.GetStart() == nil {
		e.t.Fatalf("the first event is %v", event)
	}
	e.pid = event.GetStart().GetPid()
	return e
}

// result is all that a process gave.
type result struct {
	stdout, stderr, pty string
	keepalives          int
	end                 *processpb.ProcessEvent_EndEvent
}

func (e *events) wait() result {
	e.t.Helper()
	var r result
	for {
		event, ok := e.receive()
		if !ok {
			return r
		}
		switch {
		case event.GetKeepalive() != nil:
			r.keepalives++
		case event.GetEnd() != nil:
			r.end = event.GetEnd()
		}
		r.stdout += string(event.GetData().GetStdout())
		r.stderr += string(event.GetData().GetStderr())
		r.pty += string(event.GetData().GetPty())
	}
}

// until reads output up to and including wanted.
func (e *events) until(wanted string) string {
	e.t.Helper()
	var seen string
	for {
		event, ok := e.receive()
		if !ok {
			e.t.Fatalf("the stream ended with %v after %q", e.err(), seen)
		}
		data := event.GetData()
		seen += string(data.GetStdout()) + string(data.GetStderr()) + string(data.GetPty())
		if len(seen) >= len(wanted) && contains(seen, wanted) {
			return seen
		}
	}
}

func byPid(pid uint32) *processpb.ProcessSelector {
	return &processpb.ProcessSelector{Selector: &processpb.ProcessSelector_Pid{Pid: pid}}
}

func byTag(tag string) *processpb.ProcessSelector {
	return &processpb.ProcessSelector{Selector: &processpb.ProcessSelector_Tag{Tag: tag}}
}

func wantCode(t *testing.T, err error, code connect.Code) {
	t.Helper()
	if got := connect.CodeOf(err); err == nil || got != code {
		t.Errorf("got %v, want %v", err, code)
	}
}
