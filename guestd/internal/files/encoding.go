package files

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

var blocks = sync.Pool{New: func() any { block := make([]byte, blockBytes); return &block }}

func takeBlock() []byte        { return *blocks.Get().(*[]byte) }
func returnBlock(block []byte) { blocks.Put(&block) }

// bufferBytes is the reading step for a body: a small one needs no large buffer.
func bufferBytes(length int64) int {
	if length < 0 || length > blockBytes {
		return blockBytes
	}
	return max(int(length), 4096)
}

// decoded undoes the Content-Encoding of a request body.
func decoded(body io.Reader, header http.Header, step int) (io.Reader, error) {
	encoding := strings.ToLower(strings.TrimSpace(strings.Join(header.Values("Content-Encoding"), ",")))
	switch encoding {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
		reader, err := gzip.NewReader(bufio.NewReaderSize(body, step))
		if err != nil {
			return nil, inflateFault(err)
		}
		return &inflater{source: reader, left: maxInflatedBytes}, nil
	}
	return nil, invalid("cannot decode Content-Encoding '%s'; send gzip or identity", encoding)
}

// inflater bounds what a compressed body may grow to.
type inflater struct {
	source io.Reader
	left   int64
}

func (i *inflater) Read(p []byte) (int, error) {
	n, err := i.source.Read(p)
	if i.left -= int64(n); i.left < 0 {
		f := invalid("cannot take a body that inflates to more than %d GiB", maxInflatedBytes>>30)
		f.status = http.StatusRequestEntityTooLarge
		return 0, f
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = inflateFault(err)
	}
	return n, err
}

func inflateFault(err error) error {
	var known *fault
	if errors.As(err, &known) {
		return known
	}
	return invalid("cannot inflate the gzip body: %s", err)
}
