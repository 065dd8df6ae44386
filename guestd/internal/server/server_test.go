package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/afterfork"
	"warren.dev/guestd/internal/files"
	"warren.dev/guestd/internal/identity"
	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/keepsake"
	"warren.dev/guestd/internal/leaktest"
	"warren.dev/guestd/internal/metrics"
	"warren.dev/guestd/internal/ports"
	"warren.dev/guestd/internal/process"
	"warren.dev/guestd/internal/reap"
	"warren.dev/guestd/internal/state"
)

var reaper = reap.New()

func TestMain(m *testing.M) { leaktest.Main(m, reaper.Close) }

type guest struct {
	t     *testing.T
	state *state.State
	log   *journal.Journal
	etc   string
	web   http.Handler
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	etc := t.TempDir()
	st, log := state.New(), journal.New(time.Now)
	book := account.New(etc+"/passwd", etc+"/group")
	return &guest{t: t, state: st, log: log, etc: etc, web: Handler(Parts{
		State: st, Process: process.New(st, book, reaper, log), Files: files.New(st, book, log), Tunnel: ports.New(),
		Journal: log, Metrics: metrics.New("", "/", time.Now), Identity: identity.NewWriter(etc, filepath.Join(etc, "run")),
		Keepsake: keepsake.New(filepath.Join(etc, "keep")),
		AfterFork: &afterfork.Notice{
			Hooks: filepath.Join(etc, "hooks"), Run: filepath.Join(etc, "warren"), Reaper: reaper, Journal: log,
			Others: func() []int { return nil },
		},
	})}
}

// call sends one request; headers are "Name: value".
func (g *guest) call(method, path, body string, headers ...string) *http.Response {
	g.t.Helper()
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	recorder := httptest.NewRecorder()
	g.web.ServeHTTP(recorder, request)
	return recorder.Result()
}

func (g *guest) want(status int, response *http.Response) string {
	g.t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	if response.StatusCode != status {
		g.t.Errorf("status %d, want %d: %s", response.StatusCode, status, body)
	}
	if status >= 400 {
		var said fault
		if err := json.Unmarshal(body, &said); err != nil || said.Code != status || said.Message == "" {
			g.t.Errorf("not the body of a refusal: %q", body)
		}
	}
	return string(body)
}

func TestEveryRouteAsksForItsToken(t *testing.T) {
	g := newGuest(t)
	g.want(204, g.call("POST", "/init", `{"accessToken":"user","controlToken":"platform"}`))
	s := &server{Parts: Parts{Files: &files.Service{}, Tunnel: ports.New()}}
	for _, r := range s.plainRoutes() {
		response := g.call(r.method, r.path, "{}")
		switch {
		case r.path == "/health":
			g.want(204, response)
		default:
			g.want(401, response)
		}
		if r.access == control {
			g.want(401, g.call(r.method, r.path, "", "X-Access-Token: user"))
		}
	}
	for _, path := range append(processProcedures, filesystemProcedures...) {
		g.want(401, g.call("POST", path, "{}", "Content-Type: application/json"))
		g.want(401, g.call("POST", path, "{}", "Content-Type: application/json", "X-Access-Token: wrong"))
	}
	g.want(401, g.call("GET", "/no/such/route", ""))
	g.want(200, g.call("GET", "/envs", "", "X-Access-Token: user"))
	g.want(200, g.call("GET", "/warren/logs", "", "X-Warren-Control: platform"))
	g.want(200, g.call("POST", "/process.Process/List", "{}", "Content-Type: application/json", "X-Access-Token: user"))
}

func TestUnknownRoutesAndMethods(t *testing.T) {
	g := newGuest(t)
	g.want(404, g.call("GET", "/nope", ""))
	g.want(404, g.call("POST", "/process.Process/Nope", ""))
	response := g.call("DELETE", "/health", "")
	g.want(405, response)
	if response.Header.Get("Allow") != "GET" {
		t.Errorf("Allow is %q", response.Header.Get("Allow"))
	}
	g.want(405, g.call("GET", "/process.Process/List", ""))
}

func TestInitSetsWhatItSays(t *testing.T) {
	g := newGuest(t)
	response := g.call("POST", "/init", `{"envVars":{"A":"1"},"accessToken":"t","defaultUser":"user","defaultWorkdir":"/w",
		"timestamp":"2030-01-01T00:00:00Z","hyperloopIP":"192.0.2.9","sandboxID":"sid","templateID":"tid","hostname":"box",
		"machineID":"0123456789abcdef0123456789abcdef","dnsServers":["10.0.0.1"],"volumeMounts":[],"future":{"x":1}}`)
	g.want(204, response)
	if response.Header.Get("X-Envd-Version") != state.WireVersion {
		t.Errorf("version header %q", response.Header.Get("X-Envd-Version"))
	}
	set := g.state.Snapshot()
	if set.AccessToken != "t" || set.DefaultUser != "user" || set.DefaultWorkdir != "/w" || set.SandboxID != "sid" || set.TemplateID != "tid" {
		t.Errorf("got %+v", set)
	}
	var envs map[string]string
	body := g.want(200, g.call("GET", "/envs", "", "X-Access-Token: t"))
	if err := json.Unmarshal([]byte(body), &envs); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "1", "E2B_SANDBOX": "true", "E2B_SANDBOX_ID": "sid", "E2B_TEMPLATE_ID": "tid",
		"E2B_EVENTS_ADDRESS": "http://events.e2b.local"}
	if fmt.Sprint(envs) != fmt.Sprint(want) {
		t.Errorf("envs %v", envs)
	}
	for _, name := range []string{"hostname", "hosts", "machine-id", "resolv.conf", "run/.E2B_SANDBOX_ID"} {
		if _, err := os.Stat(filepath.Join(g.etc, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestInitKeepsWhatItDoesNotName(t *testing.T) {
	g := newGuest(t)
	g.want(204, g.call("POST", "/init", `{"envVars":{"A":"1"},"defaultUser":"u","sandboxID":"s"}`))
	g.want(204, g.call("POST", "/init", `{"envVars":null}`))
	g.want(204, g.call("POST", "/init", ``))
	if set := g.state.Snapshot(); set.Envs["A"] != "1" || set.DefaultUser != "u" || set.SandboxID != "s" {
		t.Errorf("got %+v", set)
	}
	g.want(204, g.call("POST", "/init", `{"envVars":{}}`))
	if len(g.state.Envs()) != 0 {
		t.Error("an empty map does not replace")
	}
}

func TestTokenRulesOfInit(t *testing.T) {
	g := newGuest(t)
	g.want(204, g.call("POST", "/init", `{"accessToken":"a"}`))
	g.want(401, g.call("POST", "/init", `{}`))
	g.want(204, g.call("POST", "/init", `{}`, "X-Access-Token: a"))
	if g.state.AccessToken() != "" {
		t.Error("without a control token, an absent access token clears")
	}
	g.want(204, g.call("POST", "/init", `{"accessToken":"a","controlToken":"c"}`))
	g.want(401, g.call("POST", "/init", `{"accessToken":""}`, "X-Access-Token: a"))
	g.want(401, g.call("POST", "/init", `{"accessToken":""}`, "X-Warren-Control: x"))
	g.want(204, g.call("POST", "/init", `{"envVars":{"A":"1"}}`, "X-Warren-Control: c"))
	if g.state.AccessToken() != "a" {
		t.Error("under a control token, an absent access token keeps")
	}
	g.want(204, g.call("POST", "/init", `{"accessToken":"b","controlToken":"d"}`, "X-Warren-Control: c"))
	g.want(401, g.call("GET", "/envs", "", "X-Access-Token: a"))
	g.want(200, g.call("GET", "/envs", "", "X-Access-Token: b"))
	g.want(200, g.call("GET", "/warren/logs", "", "X-Warren-Control: d"))
}

func TestStaleInitIsIgnored(t *testing.T) {
	g := newGuest(t)
	g.want(204, g.call("POST", "/init", `{"timestamp":"2030-01-02T00:00:00Z","defaultUser":"new"}`))
	g.want(204, g.call("POST", "/init", `{"timestamp":"2030-01-01T00:00:00Z","defaultUser":"old"}`))
	if g.state.DefaultUser() != "new" {
		t.Errorf("user is %s", g.state.DefaultUser())
	}
	g.want(204, g.call("POST", "/init", `{"defaultUser":"newest"}`))
	if g.state.DefaultUser() != "newest" {
		t.Errorf("without a time the user stays %s", g.state.DefaultUser())
	}
}

func TestRefusedInits(t *testing.T) {
	g := newGuest(t)
	for _, body := range []string{
		`{`, `[]`, `{"envVars":{"A=B":"x"}}`, `{"envVars":{"A":"\u0000"}}`, `{"hyperloopIP":"nowhere"}`,
		`{"volumeMounts":[{"nfs_target":"x","path":"/y"}]}`, `{"hostname":"a b"}`, `{"timestamp":"yesterday"}`,
	} {
		g.want(400, g.call("POST", "/init", body))
	}
	if set := g.state.Snapshot(); len(set.Envs) != 0 || set.EventsAddress != "" {
		t.Errorf("a refused call has changed %+v", set)
	}
}

func TestBrowsersMayCallFromEverywhere(t *testing.T) {
	g := newGuest(t)
	g.state.Change(func(set *state.Settings) { set.AccessToken = "t" })
	preflight := g.call("OPTIONS", "/process.Process/Start", "", "Origin: https://a.example",
		"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-access-token,connect-timeout-ms")
	g.want(204, preflight)
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "x-access-token,connect-timeout-ms",
		"Access-Control-Max-Age": "7200", "Access-Control-Allow-Methods": allowedMethods,
	} {
		if got := preflight.Header.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	refused := g.call("GET", "/envs", "", "Origin: https://a.example")
	g.want(401, refused)
	if refused.Header.Get("Access-Control-Allow-Origin") != "*" || refused.Header.Get("Access-Control-Expose-Headers") == "" {
		t.Errorf("a refusal hides from browsers: %v", refused.Header)
	}
}

func TestUnaryErrorsAndNoCompression(t *testing.T) {
	g := newGuest(t)
	response := g.call("POST", "/process.Process/SendSignal", `{"process":{"pid":4194000},"signal":"SIGNAL_SIGKILL"}`,
		"Content-Type: application/json", "Accept-Encoding: gzip", "Connect-Timeout-Ms: 0")
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != 404 || string(body) != `{"code":"not_found","message":"process with pid 4194000 not found"}` {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	if got := response.Header.Get("Content-Encoding"); got != "" {
		t.Errorf("compressed with %s", got)
	}
}

func TestLogsArePaged(t *testing.T) {
	g := newGuest(t)
	for range 3 {
		g.log.Info("test", "x", nil)
	}
	var page journal.Page
	if err := json.Unmarshal([]byte(g.want(200, g.call("GET", "/warren/logs?after=1&limit=1", ""))), &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Entries) != 1 || page.Entries[0].Seq != 2 {
		t.Errorf("got %+v", page)
	}
	g.want(400, g.call("GET", "/warren/logs?after=x", ""))
	g.want(400, g.call("GET", "/warren/logs?limit=-1", ""))
}

func FuzzInstructions(f *testing.F) {
	f.Fuzz(func(t *testing.T, body string) {
		told, err := parseInstructions(strings.NewReader(body))
		if err != nil {
			return
		}
		for name, value := range told.EnvVars {
			if name == "" || strings.Contains(name, "=") || strings.Contains(name+value, "\x00") {
				t.Errorf("let through %q=%q", name, value)
			}
		}
	})
}

func FuzzTimeoutHeader(f *testing.F) {
	next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if text := r.Header.Get(timeoutHeader); strings.Trim(text, "0") == "" && text != "" && len(text) <= maxTimeoutDigits {
			panic("a zero would end the call at once")
		}
	})
	f.Fuzz(func(t *testing.T, text string) {
		request := httptest.NewRequest("POST", "/process.Process/Start", nil)
		request.Header[timeoutHeader] = []string{text}
		adjustTimeout(next).ServeHTTP(httptest.NewRecorder(), request)
	})
}

func TestTheEnvironmentOutlivesABootOnlyWhenItWasKept(t *testing.T) {
	g := newGuest(t)
	g.want(204, g.call("POST", "/init", `{"controlToken":"platform","envVars":{"A":"1"}}`))
	g.want(204, g.call("POST", "/warren/envs", "", "X-Warren-Control: platform"))
	boot := func(body string) map[string]string {
		g.state.Change(func(set *state.Settings) { *set = state.Settings{} })
		g.want(204, g.call("POST", "/init", body))
		return g.state.Envs()
	}
	if got := boot(`{"controlToken":"platform","recallsEnvs":true}`); got["A"] != "1" {
		t.Errorf("after the boot: %v", got)
	}
	if got := boot(`{"controlToken":"platform","recallsEnvs":true}`); len(got) != 0 {
		t.Errorf("recalled twice: %v", got)
	}
	g.want(204, g.call("POST", "/warren/envs", "", "X-Warren-Control: platform"))
	if got := boot(`{"controlToken":"platform","isCopy":true,"envVars":{}}`); len(got) != 0 {
		t.Errorf("a copy has %v", got)
	}
	if got := boot(`{"controlToken":"platform","recallsEnvs":true}`); len(got) != 0 {
		t.Errorf("what a copy must not have was left in its files: %v", got)
	}
}

func TestACopyIsToldAlsoWhenTheClockWentBack(t *testing.T) {
	g := newGuest(t)
	g.want(204, g.call("POST", "/init", `{"controlToken":"source","accessToken":"a","timestamp":"2026-01-02T00:00:00Z"}`))
	copied := `{"controlToken":"copy","accessToken":"b","timestamp":"2026-01-01T00:00:00Z","isCopy":true}`
	g.want(401, g.call("POST", "/init", copied, "X-Warren-Control: copy"))
	g.want(204, g.call("POST", "/init", copied, "X-Warren-Control: source"))
	g.want(401, g.call("GET", "/envs", "", "X-Access-Token: a"))
	g.want(200, g.call("GET", "/envs", "", "X-Access-Token: b"))
	if _, err := os.Stat(filepath.Join(g.etc, "warren", "fork")); err != nil {
		t.Error(err)
	}
}
