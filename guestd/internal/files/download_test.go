package files

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren.dev/guestd/internal/signature"
	"warren.dev/guestd/internal/state"
)

func TestDownload(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/a.txt", "content")
	got := b.get("a.txt", nil)
	if got.status != 200 || got.body != "content" {
		t.Fatalf("%d %q", got.status, got.body)
	}
	for name, want := range map[string]string{
		"Content-Disposition": "inline; filename=a.txt", "Vary": "Accept-Encoding", "Content-Length": "7",
		"Content-Type": "text/plain; charset=utf-8", "Accept-Ranges": "bytes", "Content-Encoding": "",
	} {
		if value := got.header.Get(name); value != want {
			t.Errorf("%s: %q, want %q", name, value, want)
		}
	}
	if got.header.Get("ETag") == "" || got.header.Get("Last-Modified") == "" {
		t.Error("no validators")
	}
	head := b.call("HEAD", url.Values{"path": {"a.txt"}}, nil, nil)
	if head.status != 200 || head.body != "" || head.header.Get("Content-Length") != "7" || head.header.Get("ETag") == "" {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
}

func TestDownloadFaults(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/f", "x")
	if got := b.get("/no/such", nil).fault(t, 404); got != "path '/no/such' does not exist" {
		t.Errorf("message %q", got)
	}
	b.get("f/below", nil).fault(t, 404)
	if got := b.get("", nil).fault(t, 400); !strings.Contains(got, "directory") {
		t.Errorf("message %q", got)
	}
	if got := b.call("GET", url.Values{"path": {"f"}, "username": {"ghost"}}, nil, nil).fault(t, 401); got != "invalid username: 'ghost'" {
		t.Errorf("message %q", got)
	}
	b.get("f", map[string]string{"Accept-Encoding": "identity;q=0"}).fault(t, 406)
	b.get("f", map[string]string{"Accept-Encoding": "br, *;q=0"}).fault(t, 406)
	b.call("PUT", url.Values{"path": {"f"}}, nil, nil).fault(t, 405)
}

func TestRangesAndConditions(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/f", "0123456789")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(b.home+"/f", old, old); err != nil {
		t.Fatal(err)
	}
	first := b.get("f", nil)
	tag := first.header.Get("ETag")
	for _, c := range []struct {
		header map[string]string
		status int
		body   string
	}{
		{map[string]string{"Range": "bytes=2-4", "Accept-Encoding": "gzip"}, 206, "234"},
		{map[string]string{"Range": "bytes=-2"}, 206, "89"},
		{map[string]string{"If-None-Match": tag}, 304, ""},
		{map[string]string{"If-None-Match": "W/" + strings.TrimPrefix(tag, "W/")}, 304, ""},
		{map[string]string{"If-None-Match": `"other"`, "Accept-Encoding": "gzip"}, 200, "0123456789"},
		{map[string]string{"If-Modified-Since": time.Now().UTC().Format(http.TimeFormat)}, 304, ""},
		{map[string]string{"If-Range": `"other"`, "Range": "bytes=1-1"}, 200, "0123456789"},
	} {
		got := b.get("f", c.header)
		if got.status != c.status || got.body != c.body || got.header.Get("Content-Encoding") != "" {
			t.Errorf("%v: %d %q", c.header, got.status, got.body)
		}
	}
	if got := b.get("f", map[string]string{"Range": "bytes=50-60"}); got.status != 416 {
		t.Errorf("unsatisfiable: %d", got.status)
	}
	if err := os.WriteFile(b.home+"/f", []byte("abcdefghij"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := b.get("f", map[string]string{"If-None-Match": tag}); got.status != 200 {
		t.Errorf("a changed file kept its tag: %d", got.status)
	}
}

func TestYoungFilesHaveWeakTags(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/f", "x")
	info, err := os.Stat(b.home + "/f")
	if err != nil {
		t.Fatal(err)
	}
	if tag := etag(info, time.Now()); !strings.HasPrefix(tag, "W/") {
		t.Errorf("young: %s", tag)
	}
	if tag := etag(info, time.Now().Add(time.Minute)); strings.HasPrefix(tag, "W/") {
		t.Errorf("old: %s", tag)
	}
}

func TestKernelFilesAreReadToTheirEnd(t *testing.T) {
	b := newBench(t)
	for _, path := range []string{"/proc/sys/kernel/random/boot_id", "/proc/version"} {
		got := b.get(path, map[string]string{"Accept-Encoding": "gzip, deflate"})
		if got.status != 200 || got.body == "" || got.header.Get("Content-Length") != fmt.Sprint(len(got.body)) {
			t.Errorf("%s: %d %q %v", path, got.status, got.body, got.header)
		}
	}
	if got := b.get("/sys/kernel/mm/transparent_hugepage/enabled", nil); got.status == 200 && len(got.body) >= 4096 {
		t.Errorf("a whole page for %q", got.body)
	}
	want, err := os.ReadFile("/proc/kallsyms")
	if got := b.get("/proc/kallsyms", nil); err == nil && len(want) > smallFileBytes && len(got.body) != len(want) {
		t.Errorf("a long one has %d bytes, want %d", len(got.body), len(want))
	}
}

func TestEmptyFileAndPipe(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/empty", "")
	if got := b.get("empty", nil); got.status != 200 || got.header.Get("Content-Length") != "0" || got.header.Get("ETag") == "" {
		t.Errorf("empty file: %d %v", got.status, got.header)
	}
	if err := syscall.Mkfifo(b.home+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	if got := b.get("fifo", nil); got.status != 200 || got.body != "" {
		t.Errorf("pipe: %d %q", got.status, got.body)
	}
}

func TestEndlessDeviceEndsWithItsClient(t *testing.T) {
	b := newBench(t)
	response, err := http.Get(b.url + "/files?path=/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(response.Body, make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	eventually(t, func() bool { return len(b.service.transfers) == 0 })
}

func TestGzipDownloads(t *testing.T) {
	b := newBench(t)
	text := strings.Repeat("a line of text that repeats\n", 40_000)
	write(t, b.home+"/text", text)
	got := b.get("text", map[string]string{"Accept-Encoding": "gzip"})
	if got.header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(got.header.Get("ETag"), "W/") {
		t.Fatalf("headers %v", got.header)
	}
	reader, err := gzip.NewReader(strings.NewReader(got.body))
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if _, err := io.Copy(&plain, reader); err != nil || plain.String() != text {
		t.Errorf("differs: %v", err)
	}
	for _, automatic := range []string{"gzip, deflate", "gzip;q=0", "identity, gzip;q=0.5", ""} {
		if got := b.get("text", map[string]string{"Accept-Encoding": automatic}); got.header.Get("Content-Encoding") != "" || got.body != text {
			t.Errorf("%q: %v", automatic, got.header)
		}
	}
	write(t, b.home+"/short", "x")
	if got := b.get("short", map[string]string{"Accept-Encoding": "gzip"}); got.header.Get("Content-Encoding") != "" || got.body != "x" {
		t.Errorf("short: %v", got.header)
	}
	for _, path := range []string{"short", "/proc/version"} {
		if got := b.get(path, map[string]string{"Accept-Encoding": "gzip, identity;q=0"}); got.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s, gzip only: %d %v", path, got.status, got.header)
		}
	}
}

func TestContentDispositionOfOddNames(t *testing.T) {
	for name, want := range map[string]string{
		"a b.txt": `inline; filename="a b.txt"`, `q"uote`: `inline; filename="q\"uote"`,
		"ü": "inline; filename*=utf-8''%C3%BC", "a\r\nX: y": `inline; filename="a__X: y"`,
	} {
		if got := contentDisposition(name); got != want {
			t.Errorf("%q: %s", name, got)
		}
	}
}

func TestWhoMayTouchFiles(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/f", "x")
	if b.get("f", nil).status != 200 {
		t.Fatal("refused before any token was set")
	}
	b.state.Change(func(set *state.Settings) { set.AccessToken = "secret" })
	sign := func(operation signature.Operation, expiration *int64) url.Values {
		claim := signature.Claim{Path: "f", Operation: operation, Expiration: expiration}
		query := url.Values{"path": {"f"}, "signature": {signature.Sign(claim, "secret")}}
		if expiration != nil {
			query.Set("signature_expiration", fmt.Sprint(*expiration))
		}
		return query
	}
	past, future := time.Now().Unix()-10, time.Now().Unix()+1000
	octets := map[string]string{"Content-Type": "application/octet-stream"}
	for _, c := range []struct {
		name, method string
		query        url.Values
		header       map[string]string
		status       int
		text         string
	}{
		{"token", "GET", url.Values{"path": {"f"}}, map[string]string{tokenHeader: "secret"}, 200, ""},
		{"wrong token", "GET", sign(signature.Read, nil), map[string]string{tokenHeader: "other"}, 401, "does not match"},
		{"nothing", "GET", url.Values{"path": {"f"}}, nil, 401, "missing signature query parameter"},
		{"nothing to write", "POST", url.Values{"path": {"f"}}, octets, 401, "missing signature query parameter"},
		{"signed", "GET", sign(signature.Read, nil), nil, 200, ""},
		{"signed HEAD", "HEAD", sign(signature.Read, &future), nil, 200, ""},
		{"signed for now", "GET", sign(signature.Read, &future), nil, 200, ""},
		{"expired", "GET", sign(signature.Read, &past), nil, 401, "signature is already expired"},
		{"signed to read", "POST", sign(signature.Read, nil), octets, 401, "invalid signature"},
		{"signed to write", "POST", sign(signature.Write, nil), octets, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := b.call(c.method, c.query, c.header, strings.NewReader("x"))
			if c.status != 200 {
				if text := got.fault(t, c.status); !strings.Contains(text, c.text) {
					t.Errorf("message %q", text)
				}
			} else if got.status != 200 {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	if got := b.call("GET", sign(signature.Read, &past), nil, nil); got.body != `{"code":401,"message":"signature is already expired"}` {
		t.Errorf("body %s", got.body)
	}
}

func TestChooseCoding(t *testing.T) {
	for header, want := range map[string]coding{
		"": codingIdentity, "gzip": codingGzip, "x-gzip": codingGzip, "gzip, deflate": codingIdentity,
		"gzip, deflate, br": codingIdentity, "gzip;q=0": codingIdentity, "*": codingIdentity,
		"*;q=0": codingNone, "identity;q=0": codingNone, "gzip, identity;q=0": codingGzipOnly,
		"br;q=1, gzip;q=0.1, *;q=0": codingGzipOnly, "gzip;q=nonsense": codingIdentity, ";;,,": codingIdentity,
		"GZIP ; Q=0.5": codingGzip, "identity;q=1, gzip;q=0.5": codingIdentity,
	} {
		if got := chooseCoding(http.Header{"Accept-Encoding": {header}}); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}
