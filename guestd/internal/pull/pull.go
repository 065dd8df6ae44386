// Package pull reads descriptors without holding memory for the quiet ones: a buffer is
// taken from a pool only once the kernel has bytes to give.
package pull

import (
	"io"
	"sync"
	"syscall"
)

// Source is an open pipe, terminal or socket in non-blocking mode.
type Source interface {
	SyscallConn() (syscall.RawConn, error)
}

// Pool lends buffers of one size.
type Pool struct {
	buffers sync.Pool
}

// NewPool returns a pool of buffers of size bytes; a single read never gives more.
func NewPool(size int) *Pool {
	return &Pool{sync.Pool{New: func() any {
		buffer := make([]byte, size)
		return &buffer
	}}}
}

// Each reads source to its end and hands every read to deliver, which must not keep the
// bytes. It returns nil at the end of the stream, and deliver's error as it is.
func (p *Pool) Each(source Source, deliver func([]byte) error) error {
	raw, err := source.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var buffer *[]byte
		var count int
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			buffer = p.buffers.Get().(*[]byte)
			count, readErr = readRetrying(int(fd), *buffer)
			if readErr == syscall.EAGAIN {
				p.buffers.Put(buffer)
				buffer = nil
				return false
			}
			return true
		})
		if buffer == nil {
			return err
		}
		if count > 0 {
			err = deliver((*buffer)[:count])
		}
		p.buffers.Put(buffer)
		switch {
		case err != nil:
			return err
		case readErr != nil:
			return readErr
		case count == 0:
			return nil
		}
	}
}

func readRetrying(fd int, buffer []byte) (int, error) {
	for {
		count, err := syscall.Read(fd, buffer)
		if err != syscall.EINTR {
			return max(count, 0), err
		}
	}
}

// Copy moves source to sink until source ends.
func (p *Pool) Copy(sink io.Writer, source Source) error {
	return p.Each(source, func(bytes []byte) error {
		_, err := sink.Write(bytes)
		return err
	})
}
