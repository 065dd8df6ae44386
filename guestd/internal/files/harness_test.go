package files

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"warren.dev/guestd/gen/filesystem/filesystemconnect"
	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/state"
)

// bench is a service behind a real listener, with a user database and a home of its own.
type bench struct {
	testing.TB
	service *Service
	state   *state.State
	url     string
	home    string
	rpc     filesystemconnect.FilesystemClient
}

const (
	userUID = 4321
	userGID = 4322
)

func newBench(t testing.TB) *bench {
	t.Helper()
	before := runtime.NumGoroutine()
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	for _, path := range []string{home, filepath.Join(dir, "etc")} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	passwd, group := filepath.Join(dir, "etc/passwd"), filepath.Join(dir, "etc/group")
	lines := fmt.Sprintf("root:x:0:0::/root:/bin/sh\nuser:x:%d:%d::%s:/bin/sh\n", userUID, userGID, home)
	write(t, passwd, lines)
	write(t, group, fmt.Sprintf("root:x:0:\nusers:x:%d:\n", userGID))
	st := state.New()
	st.Change(func(set *state.Settings) { set.DefaultUser = "user" })
	service := New(st, account.New(passwd, group), journal.New(time.Now))
	mux := http.NewServeMux()
	mux.HandleFunc("/files", service.ServeFiles)
	mux.HandleFunc("/files/compose", service.ServeCompose)
	mux.Handle(filesystemconnect.NewFilesystemHandler(service))
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		service.Close()
		server.CloseClientConnections()
		server.Close()
		http.DefaultClient.CloseIdleConnections()
		eventually(t, func() bool { return runtime.NumGoroutine() <= before })
		if len(service.transfers) > 0 {
			t.Errorf("%d transfers have not ended", len(service.transfers))
		}
		service.staging.Range(func(path, _ any) bool {
			t.Errorf("%s is still being staged", path)
			return true
		})
	})
	return &bench{TB: t, service: service, state: st, url: server.URL, home: home,
		rpc: filesystemconnect.NewFilesystemClient(server.Client(), server.URL)}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// reply is a response that has been read.
type reply struct {
	status int
	header http.Header
	body   string
}

// fault checks that the reply is an error of the wire's form, and returns its message.
func (r reply) fault(t testing.TB, status int) string {
	t.Helper()
	var body struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	if r.status != status {
		t.Fatalf("status %d, want %d; body %s", r.status, status, r.body)
	}
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || body.Code != status || body.Message == "" {
		t.Fatalf("body %q is no error with code %d", r.body, status)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Fatalf("content type %q of an error", got)
	}
	return body.Message
}

func (r reply) files(t testing.TB) []written {
	t.Helper()
	var list []written
	if r.status != 200 {
		t.Fatalf("status %d; body %s", r.status, r.body)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Fatalf("content type %q", got)
	}
	if err := json.Unmarshal([]byte(r.body), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func (b *bench) call(method string, query url.Values, header map[string]string, body io.Reader) reply {
	b.Helper()
	return b.callAt("/files", method, query, header, body)
}

func (b *bench) callAt(route, method string, query url.Values, header map[string]string, body io.Reader) reply {
	b.Helper()
	request, err := http.NewRequest(method, b.url+route+"?"+query.Encode(), body)
	if err != nil {
		b.Fatal(err)
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(content)}
}

func (b *bench) get(path string, header map[string]string) reply {
	b.Helper()
	return b.call("GET", url.Values{"path": {path}}, header, nil)
}

func (b *bench) put(path, content string, header map[string]string) reply {
	b.Helper()
	all := map[string]string{"Content-Type": "application/octet-stream"}
	for name, value := range header {
		all[name] = value
	}
	return b.call("POST", url.Values{"path": {path}}, all, bytes.NewReader([]byte(content)))
}

// part is one part of a multipart body.
type part struct{ name, filename, content string }

func form(t testing.TB, parts ...part) (io.Reader, map[string]string) {
	t.Helper()
	var body bytes.Buffer
	writer := multipart.NewWriter(&body)
	for _, p := range parts {
		header := textproto.MIMEHeader{}
		header.Set("Content-Disposition", fmt.Sprintf(`form-data; name="%s"; filename="%s"`, p.name, p.filename))
		out, err := writer.CreatePart(header)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(out, p.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return &body, map[string]string{"Content-Type": writer.FormDataContentType()}
}

// leftovers are temporary files that an upload should have removed.
func leftovers(t testing.TB, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, ".guestd-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
