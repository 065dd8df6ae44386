package files

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
)

// composeRequest asks to join parts that were uploaded one by one.
type composeRequest struct {
	SourcePaths []string `json:"source_paths"`
	Destination string   `json:"destination"`
	Username    string   `json:"username"`
}

// ServeCompose answers POST /files/compose: it writes the sources, one after the other,
// into the destination, which appears as a whole, and then removes them.
func (s *Service) ServeCompose(w http.ResponseWriter, r *http.Request) {
	reply, err := s.compose(w, r)
	if err != nil {
		f := faultOf(err, reply.Path)
		s.log.Warn(logger, "compose failed", map[string]string{"path": reply.Path, "error": f.message})
		replyFault(w, f)
		return
	}
	replyJSON(w, reply)
}

func (s *Service) compose(w http.ResponseWriter, r *http.Request) (written, error) {
	var request composeRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxComposeBytes)).Decode(&request); err != nil {
		return written{}, invalid("cannot read the JSON body: %s", err)
	}
	reply := writtenAt(request.Destination, nil)
	if len(request.SourcePaths) == 0 || len(request.SourcePaths) > maxComposeParts || request.Destination == "" {
		return reply, invalid("cannot compose: 1 to %d source_paths and a destination are needed", maxComposeParts)
	}
	metadata, err := parseMetadata(r.Header)
	if err != nil {
		return reply, err
	}
	user, f := s.whose(request.Username)
	if f != nil {
		return reply, f
	}
	if f := s.begin(r.Context()); f != nil {
		return reply, f
	}
	defer s.end()
	parts := &sources{}
	defer parts.close()
	for _, path := range request.SourcePaths {
		resolved, f := s.resolve(user, path)
		if f != nil {
			return reply, f
		}
		if err := parts.add(resolved); err != nil {
			return reply, err
		}
	}
	batch := s.newBatch(user, metadata)
	defer batch.discard()
	if err := batch.take(parts, request.Destination); err != nil {
		return reply, err
	}
	if parts.has(batch.staged[0].final) {
		return reply, invalid("cannot compose: the destination is one of the sources")
	}
	replies, err := batch.commit()
	if err != nil {
		return reply, err
	}
	return replies[0], parts.remove()
}

// sources reads files one after the other, with one of them open at a time.
type sources struct {
	paths []string
	next  int
	open  *os.File
}

// add refuses early what could not be read later.
func (p *sources) add(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return faultOf(err, path)
	}
	if !info.Mode().IsRegular() {
		return invalid("cannot compose '%s': it is not an ordinary file", path)
	}
	p.paths = append(p.paths, path)
	return nil
}

func (p *sources) Read(buf []byte) (int, error) {
	for {
		if p.open == nil {
			if p.next == len(p.paths) {
				return 0, io.EOF
			}
			file, _, err := openForReading(p.paths[p.next])
			if err != nil {
				return 0, err
			}
			p.open, p.next = file, p.next+1
		}
		n, err := p.open.Read(buf)
		if n > 0 || (err != nil && !errors.Is(err, io.EOF)) {
			return n, err
		}
		p.close()
	}
}

func (p *sources) close() {
	if p.open != nil {
		p.open.Close()
		p.open = nil
	}
}

func (p *sources) has(path string) bool {
	for _, source := range p.paths {
		if real, err := filepath.EvalSymlinks(source); err == nil && real == path {
			return true
		}
	}
	return false
}

func (p *sources) remove() error {
	for _, path := range p.paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return faultOf(err, path)
		}
	}
	return nil
}
