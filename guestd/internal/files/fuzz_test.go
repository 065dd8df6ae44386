package files

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/state"
)

func FuzzMultipart(f *testing.F) {
	dir := f.TempDir()
	service := New(state.New(), account.New("/none", "/none"), journal.New(time.Now))
	f.Fuzz(func(t *testing.T, body []byte) {
		batch := service.newBatch(account.User{Home: dir, GID: userGID, UID: userUID}, nil)
		defer batch.discard()
		// A fixed destination: the fuzzer must not choose where on this machine to write.
		err := batch.takeParts(bytes.NewReader(body), "b", dir+"/out")
		if len(batch.staged) > 1 {
			t.Fatal("one target was taken twice")
		}
		var known *fault
		if err != nil && (!errors.As(err, &known) || known.status < 400 || known.status > 499) {
			t.Fatalf("the body is to blame, but the error is %v", err)
		}
		if err == nil {
			want, ok := firstFile(body)
			got, readErr := os.ReadFile(batch.staged[0].temp)
			if !ok || readErr != nil || !bytes.Equal(got, want) {
				t.Fatalf("wrote %q, want %q; %v", got, want, readErr)
			}
		}
	})
}

// firstFile decodes the body in the plainest way.
func firstFile(body []byte) ([]byte, bool) {
	reader := multipart.NewReader(bytes.NewReader(body), "b")
	for {
		part, err := reader.NextRawPart()
		if err != nil {
			return nil, false
		}
		if part.FormName() == partName {
			content, err := io.ReadAll(part)
			return content, err == nil
		}
	}
}

func FuzzDisposition(f *testing.F) {
	f.Fuzz(func(t *testing.T, header string) {
		name, filename, err := disposition(header)
		if err != nil && (name != "" || filename != "") {
			t.Fatal("names beside an error")
		}
		if _, params, parseErr := mime.ParseMediaType(header); err == nil && (parseErr != nil || params["name"] != name) {
			t.Fatal("accepted what cannot be parsed")
		}
	})
}

func FuzzMetadata(f *testing.F) {
	f.Fuzz(func(t *testing.T, name, value string) {
		metadata, err := parseMetadata(http.Header{name: {value}})
		if err != nil && len(metadata) > 0 {
			t.Fatal("metadata beside an error")
		}
		for key, value := range metadata {
			if key == "" || len(key) > maxMetadataKeyBytes || !isPrintableASCII(key+value) || strings.ContainsAny(key, "/ ") || key != strings.ToLower(key) {
				t.Fatalf("%q: %q", key, value)
			}
		}
	})
}

func FuzzAcceptEncoding(f *testing.F) {
	f.Fuzz(func(t *testing.T, value string) {
		got := chooseCoding(http.Header{"Accept-Encoding": {value}})
		if got == codingGzip && !strings.Contains(strings.ToLower(value), "gzip") {
			t.Fatalf("gzip for %q", value)
		}
	})
}

func FuzzDownloadHeaders(f *testing.F) {
	bench := newBench(f)
	write(f, bench.home+"/f", "0123456789")
	f.Fuzz(func(t *testing.T, ranges, tag, name string) {
		if strings.ContainsAny(contentDisposition(name), "\r\n\x00") {
			t.Fatalf("header can be split by %q", name)
		}
		request, _ := http.NewRequest("GET", "/files?path=f", nil)
		request.Header["Range"], request.Header["If-None-Match"] = []string{ranges}, []string{tag}
		recorder := newRecorder()
		bench.service.ServeFiles(recorder, request)
		if recorder.status >= 500 || recorder.bytes > 100_000 {
			t.Fatalf("status %d, %d bytes", recorder.status, recorder.bytes)
		}
	})
}

// recorder counts what a handler writes.
type recorder struct {
	header http.Header
	status int
	bytes  int
}

func newRecorder() *recorder                    { return &recorder{header: http.Header{}, status: 200} }
func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { r.bytes += len(p); return len(p), nil }
