package files

import (
	"io"
	"net/http"
	"time"
)

const (
	// downloadIdle is how long a client may take nothing; the server's own idle limit.
	downloadIdle = 640 * time.Second
	// paceBytes is what may be sent under one deadline.
	paceBytes = 8 << 20
)

// paced gives a response a deadline for each step, and keeps the way open on which the
// kernel sends a file by itself. Its release belongs to the end of the request.
func paced(w http.ResponseWriter) *pacedWriter {
	return &pacedWriter{ResponseWriter: w, control: http.NewResponseController(w)}
}

// release takes the deadline off a connection that will serve other requests.
func (p *pacedWriter) release() { _ = p.control.SetWriteDeadline(time.Time{}) }

type pacedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *pacedWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *pacedWriter) Write(content []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(downloadIdle)) // a test recorder has no deadlines
	return p.ResponseWriter.Write(content)
}

// ReadFrom passes a bounded reader on in steps. It hands over an io.LimitedReader around
// the file itself, which is the form that net recognises for sendfile.
func (p *pacedWriter) ReadFrom(source io.Reader) (int64, error) {
	limited, bounded := source.(*io.LimitedReader)
	if !bounded {
		return io.Copy(onlyWriter{p}, source)
	}
	var total int64
	for limited.N > 0 {
		_ = p.control.SetWriteDeadline(time.Now().Add(downloadIdle))
		step := &io.LimitedReader{R: limited.R, N: min(limited.N, paceBytes)}
		n, err := io.Copy(p.ResponseWriter, step)
		total += n
		limited.N -= n
		if err != nil || n == 0 {
			return total, err
		}
	}
	return total, nil
}
