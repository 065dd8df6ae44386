package files

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

// coding is how a download may be sent.
type coding int

const (
	codingNone     coding = iota // nothing that the client takes
	codingIdentity               // as it is
	codingGzip                   // compressed where that pays
	codingGzipOnly               // compressed, since the client refuses anything else
)

// chooseCoding reads Accept-Encoding. Every HTTP library announces "gzip, deflate" by
// itself, and compressing for it would make local downloads several times slower; so a
// client has to ask for gzip by name, with no other compression beside it.
func chooseCoding(header http.Header) coding {
	weights := map[string]float64{}
	others := false
	for item := range strings.SplitSeq(strings.Join(header.Values("Accept-Encoding"), ","), ",") {
		name, weight, ok := parseWeight(item)
		if !ok {
			continue
		}
		weights[name] = weight
		others = others || (name != "gzip" && name != "identity" && name != "*" && weight > 0)
	}
	weigh := func(name string, absent float64) float64 {
		if weight, named := weights[name]; named {
			return weight
		}
		if weight, named := weights["*"]; named {
			return weight
		}
		return absent
	}
	// Identity may always be sent unless it is refused in so many words.
	gzipWeight, identityWeight := weigh("gzip", 0), weigh("identity", 1)
	_, byName := weights["gzip"]
	_, identityNamed := weights["identity"]
	switch {
	case identityWeight == 0 && gzipWeight == 0:
		return codingNone
	case identityWeight == 0:
		return codingGzipOnly
	case gzipWeight > 0 && byName && !others && (!identityNamed || gzipWeight >= identityWeight):
		return codingGzip
	}
	return codingIdentity
}

func parseWeight(item string) (name string, weight float64, ok bool) {
	name, params, _ := strings.Cut(item, ";")
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "x-gzip" {
		name = "gzip"
	}
	weight = 1
	if key, value, found := strings.Cut(strings.TrimSpace(params), "="); found && strings.EqualFold(strings.TrimSpace(key), "q") {
		parsed, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(parsed >= 0 && parsed <= 1) {
			return "", 0, false
		}
		weight = parsed
	}
	return name, weight, name != ""
}

// isConditional: such requests speak about the bytes of the file, so they get those.
func isConditional(r *http.Request) bool {
	for _, name := range []string{"Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// sendGzip compresses if it has to, or if the first block shrinks by at least a tenth.
// It returns false when nothing has been sent.
func (s *Service) sendGzip(w http.ResponseWriter, r *http.Request, file *os.File, chosen coding, tag string) (bool, error) {
	if f := s.begin(r.Context()); f != nil {
		return false, f
	}
	defer s.end()
	if chosen != codingGzipOnly && !shrinks(file) {
		return false, nil
	}
	// The compressed form has the same meaning, not the same bytes: that is a weak tag.
	w.Header().Set("ETag", "W/"+strings.TrimPrefix(tag, "W/"))
	return true, compress(w, file)
}

func shrinks(file *os.File) bool {
	block := takeBlock()
	defer returnBlock(block)
	n, err := file.ReadAt(block, 0)
	if n < minGzipBytes || (err != nil && !errors.Is(err, io.EOF)) {
		return false
	}
	var counted countingWriter
	writer := takeGzip(&counted)
	defer gzips.Put(writer)
	if _, err := io.Copy(writer, bytes.NewReader(block[:n])); err != nil || writer.Close() != nil {
		return false
	}
	return int(counted) <= n-n/10
}

type countingWriter int

func (c *countingWriter) Write(p []byte) (int, error) {
	*c += countingWriter(len(p))
	return len(p), nil
}

var gzips = sync.Pool{New: func() any {
	writer, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant of the package
	}
	return writer
}}

func takeGzip(to io.Writer) *gzip.Writer {
	writer := gzips.Get().(*gzip.Writer)
	writer.Reset(to)
	return writer
}

// compress sends content as one gzip stream of unknown length.
func compress(w http.ResponseWriter, content io.Reader) error {
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Del("Content-Length")
	w.WriteHeader(http.StatusOK)
	writer := takeGzip(w)
	defer gzips.Put(writer)
	block := takeBlock()
	defer returnBlock(block)
	_, err := io.CopyBuffer(onlyWriter{writer}, onlyReader{content}, block)
	if closeErr := writer.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the reply has begun: cut it, so that it cannot look whole
	}
	return nil
}
