package files

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"warren.dev/guestd/internal/account"
)

// written is one file in the reply to an upload.
type written struct {
	Path     string            `json:"path"`
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func writtenAt(path string, metadata map[string]string) written {
	return written{Path: path, Name: filepath.Base(path), Type: "file", Metadata: metadata}
}

// upload answers POST /files. All files of a request are staged before the first one takes
// its place, so that a request which cannot be received as a whole changes nothing.
func (s *Service) upload(w http.ResponseWriter, r *http.Request) {
	body := &bodyReader{body: r.Body, control: http.NewResponseController(w)}
	defer body.release()
	replies, err := s.receive(r, body)
	if err != nil {
		f := faultOf(err, r.URL.Query().Get("path"))
		s.log.Warn(logger, "upload failed", map[string]string{"path": r.URL.Query().Get("path"), "error": f.message})
		body.drain(r)
		replyFault(w, f)
		return
	}
	replyJSON(w, replies)
}

func (s *Service) receive(r *http.Request, body *bodyReader) ([]written, error) {
	query := r.URL.Query()
	user, f := s.whose(query.Get("username"))
	if f != nil {
		return nil, f
	}
	metadata, err := parseMetadata(r.Header)
	if err != nil {
		return nil, err
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, invalid("cannot read Content-Type '%s'; send multipart/form-data or application/octet-stream", r.Header.Get("Content-Type"))
	}
	if f := s.begin(r.Context()); f != nil {
		return nil, f
	}
	defer s.end()
	step := bufferBytes(r.ContentLength)
	content, err := decoded(body, r.Header, step)
	if err != nil {
		return nil, err
	}
	batch := s.newBatch(user, metadata)
	defer batch.discard()
	switch kind {
	case "application/octet-stream":
		err = batch.takeOctets(content, query.Get("path"))
	case "multipart/form-data":
		err = batch.takeParts(bufio.NewReaderSize(content, step), params["boundary"], query.Get("path"))
	default:
		err = invalid("cannot take Content-Type '%s'; send multipart/form-data or application/octet-stream", kind)
	}
	if err != nil {
		return nil, err
	}
	return batch.commit()
}

// batch is what one request writes.
type batch struct {
	service  *Service
	user     account.User
	metadata map[string]string
	staged   []*staged
	taken    map[string]bool // final paths of this request
	block    []byte
}

func (s *Service) newBatch(user account.User, metadata map[string]string) *batch {
	return &batch{service: s, user: user, metadata: metadata, taken: map[string]bool{}, block: takeBlock()}
}

func (b *batch) takeOctets(content io.Reader, path string) error {
	if path == "" {
		return invalid("cannot tell where to write: the query parameter 'path' is missing")
	}
	return b.take(content, path)
}

// take stages one file.
func (b *batch) take(content io.Reader, path string) error {
	if strings.HasSuffix(path, "/") {
		return invalid("cannot write '%s': path is a directory", path)
	}
	resolved, f := b.service.resolve(b.user, path)
	if f != nil {
		return f
	}
	place, err := findPlace(resolved, b.user)
	if err != nil {
		return faultOf(err, resolved)
	}
	if b.taken[place.final] {
		return invalid("cannot write '%s' twice in one upload request", resolved)
	}
	b.taken[place.final] = true
	entry, err := b.service.stage(place, b.user, b.metadata, content, b.block)
	if err != nil {
		return faultOf(err, resolved)
	}
	b.staged = append(b.staged, entry)
	return nil
}

// commit puts the staged files in place, in the order of the request.
func (b *batch) commit() ([]written, error) {
	replies := make([]written, 0, len(b.staged))
	for _, entry := range b.staged {
		if err := b.service.commit(entry, b.block); err != nil {
			return nil, faultOf(err, entry.shown)
		}
		replies = append(replies, writtenAt(entry.shown, b.metadata))
	}
	return replies, nil
}

// discard removes what was staged but not committed.
func (b *batch) discard() {
	for _, entry := range b.staged {
		b.service.unstage(entry)
	}
	returnBlock(b.block)
}

// uploadIdle is how long an upload may send nothing; the server's own idle limit.
const uploadIdle = 640 * time.Second

// bodyReader reads a request body with a deadline for each step, and tells a failure to
// read from a failure to write.
type bodyReader struct {
	body    io.ReadCloser
	control *http.ResponseController
	started bool
}

func (b *bodyReader) Read(p []byte) (int, error) {
	b.started = true
	_ = b.control.SetReadDeadline(time.Now().Add(uploadIdle)) // a test recorder has no deadlines
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = invalid("cannot read the request body: %s", err)
	}
	return n, err
}

// release takes the deadline off a connection that will serve other requests.
func (b *bodyReader) release() { _ = b.control.SetReadDeadline(time.Time{}) }

// drain throws away the rest of the body, within bounds, so that a client that is still
// sending gets to read why it failed.
func (b *bodyReader) drain(r *http.Request) {
	if !b.started && r.Header.Get("Expect") != "" {
		return // it waits for a permission that it will not get
	}
	_ = b.control.SetReadDeadline(time.Now().Add(maxDrainTime))
	block := takeBlock()
	defer returnBlock(block)
	_, _ = io.CopyBuffer(onlyWriter{io.Discard}, io.LimitReader(b.body, maxDrainBytes), block)
}

// onlyWriter hides ReadFrom, for which io.CopyBuffer would leave its buffer aside.
type onlyWriter struct{ io.Writer }

func replyJSON(w http.ResponseWriter, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		replyFault(w, internal("cannot encode the reply: %s", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // a client that has gone away is not our failure
}
