package pull

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"
)

func pipe(t *testing.T) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close(); write.Close() })
	return read, write
}

func TestCopyDeliversEverythingInBoundedPieces(t *testing.T) {
	read, write := pipe(t)
	content := bytes.Repeat([]byte("0123456789"), 20000)
	go func() {
		_, _ = write.Write(content)
		write.Close()
	}()
	var got bytes.Buffer
	err := NewPool(4096).Each(read, func(piece []byte) error {
		if len(piece) > 4096 {
			t.Errorf("a piece of %d bytes", len(piece))
		}
		got.Write(piece)
		return nil
	})
	if err != nil || !bytes.Equal(got.Bytes(), content) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
}

func TestClosingTheSourceWakesTheReader(t *testing.T) {
	read, _ := pipe(t)
	ended := make(chan error, 1)
	go func() { ended <- NewPool(16).Each(read, func([]byte) error { return nil }) }()
	read.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error for a closed source")
		}
	case <-time.After(5 * time.Second):
		t.Error("the reader sleeps on")
	}
}

func TestErrorOfTheReceiverEndsIt(t *testing.T) {
	read, write := pipe(t)
	if _, err := write.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	wanted := errors.New("full")
	if err := NewPool(16).Each(read, func([]byte) error { return wanted }); err != wanted {
		t.Errorf("got %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestCopyReportsAFailingSink(t *testing.T) {
	read, write := pipe(t)
	if _, err := write.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if err := NewPool(16).Copy(failingWriter{}, read); err != os.ErrClosed {
		t.Errorf("got %v", err)
	}
}
