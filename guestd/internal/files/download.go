package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// download answers GET and HEAD /files.
func (s *Service) download(w http.ResponseWriter, r *http.Request) {
	slow := paced(w)
	defer slow.release()
	if err := s.send(slow, r); err != nil {
		replyFault(slow, faultOf(err, r.URL.Query().Get("path")))
	}
}

// send returns an error only as long as nothing has been written.
func (s *Service) send(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	user, f := s.whose(query.Get("username"))
	if f != nil {
		return f
	}
	path, f := s.resolve(user, query.Get("path"))
	if f != nil {
		return f
	}
	file, info, err := openForReading(path)
	if err != nil {
		return err
	}
	defer file.Close()
	chosen := chooseCoding(r.Header)
	if chosen == codingNone {
		return &fault{status: http.StatusNotAcceptable, message: "cannot send the file in any encoding that Accept-Encoding allows; allow gzip or identity"}
	}
	header := w.Header()
	header.Add("Vary", "Accept-Encoding")
	header.Set("Content-Disposition", contentDisposition(filepath.Base(path)))
	if !hasTrueSize(file, info) {
		return s.sendToEOF(w, r, file, path, chosen)
	}
	contentType, err := sniff(file, path)
	if err != nil {
		return faultOf(err, path)
	}
	header.Set("Content-Type", contentType)
	tag := etag(info, time.Now())
	if chosen != codingIdentity && !isConditional(r) && r.Method == http.MethodGet {
		compressed, err := s.sendGzip(w, r, file, chosen, tag)
		if compressed || err != nil {
			return err
		}
	}
	header.Set("ETag", tag)
	http.ServeContent(w, r, "", info.ModTime(), file)
	return nil
}

// openForReading opens without waiting: a pipe that nobody writes is empty.
func openForReading(path string) (*os.File, os.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return nil, nil, missing(path) // below a file there is nothing
	case errors.Is(err, syscall.ENXIO):
		return nil, nil, invalid("cannot read '%s': it is a socket or a device without a driver", path)
	case err != nil:
		return nil, nil, faultOf(err, path)
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = invalid("cannot read '%s': path is a directory", path)
	}
	if err != nil {
		file.Close()
		return nil, nil, faultOf(err, path)
	}
	return file, info, nil
}

// hasTrueSize: the kernel's own files say 0 or a whole page, whatever is in them.
func hasTrueSize(file *os.File, info os.FileInfo) bool {
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	// Through SyscallConn, because File.Fd would make the descriptor block.
	raw, err := file.SyscallConn()
	if err != nil {
		return false
	}
	honest := false
	err = raw.Control(func(fd uintptr) {
		var st unix.Statfs_t
		honest = unix.Fstatfs(int(fd), &st) == nil && !isKernelFS(int64(st.Type))
	})
	return err == nil && honest
}

// sendToEOF sends a file whose size is unknown before it is read. A short one is read
// first, which gives it a length and makes ranges possible.
func (s *Service) sendToEOF(w http.ResponseWriter, r *http.Request, file *os.File, path string, chosen coding) error {
	if f := s.begin(r.Context()); f != nil {
		return f
	}
	defer s.end()
	// A read from a pipe or terminal may wait; it ends when the client leaves.
	defer context.AfterFunc(r.Context(), func() { _ = file.SetReadDeadline(time.Now()) })()
	block := takeBlock()
	defer returnBlock(block)
	n, err := fill(file, block[:smallFileBytes])
	if err != nil && !errors.Is(err, io.EOF) {
		return faultOf(err, path)
	}
	w.Header().Set("Content-Type", typeByContent(path, block[:n]))
	if err != nil && chosen != codingGzipOnly {
		modified := time.Time{} // what the kernel makes up on each read has no version
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() && n == 0 {
			modified = info.ModTime()
			w.Header().Set("ETag", etag(info, time.Now()))
		}
		http.ServeContent(w, r, "", modified, bytes.NewReader(block[:n]))
		return nil
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	rest := io.MultiReader(bytes.NewReader(block[:n]), file)
	if err != nil {
		rest = bytes.NewReader(block[:n])
	}
	if chosen == codingGzipOnly {
		return compress(w, rest)
	}
	copyBlock := takeBlock()
	defer returnBlock(copyBlock)
	_, _ = io.CopyBuffer(onlyWriter{w}, onlyReader{rest}, copyBlock) // headers are out: nothing left to say
	return nil
}

type onlyReader struct{ io.Reader }

// etag changes with every change of the file. A file changed moments ago may change again
// without a new time, so its tag is weak.
func etag(info os.FileInfo, now time.Time) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	tag := fmt.Sprintf(`"%x-%x-%x-%x"`, st.Ino, info.Size(), info.ModTime().UnixNano(), st.Ctim.Nano())
	if now.Sub(info.ModTime()) < racyAge || now.Sub(time.Unix(0, st.Ctim.Nano())) < racyAge {
		tag = "W/" + tag
	}
	return tag
}

func contentDisposition(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '_'
		}
		return r
	}, printable(name))
	if text := mime.FormatMediaType("inline", map[string]string{"filename": name}); text != "" {
		return text
	}
	return "inline"
}

// sniff finds the content type from the name or the first bytes.
func sniff(file *os.File, path string) (string, error) {
	var first [512]byte
	n, err := file.ReadAt(first[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return typeByContent(path, first[:n]), nil
}

// typesByName has what content alone does not show. The mime package would read the
// sandbox's own tables for this, of any size and any content.
var typesByName = map[string]string{
	".css": "text/css; charset=utf-8", ".csv": "text/csv; charset=utf-8", ".htm": "text/html; charset=utf-8",
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".json": "application/json",
	".mjs": "text/javascript; charset=utf-8", ".svg": "image/svg+xml", ".wasm": "application/wasm",
	".xml": "text/xml; charset=utf-8",
}

func typeByContent(path string, first []byte) string {
	if known, ok := typesByName[strings.ToLower(filepath.Ext(path))]; ok {
		return known
	}
	return http.DetectContentType(first)
}
