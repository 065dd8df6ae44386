package process

import (
	"os"

	"golang.org/x/sys/unix"

	"warren.dev/guestd/internal/pty"
)

// stdio is both ends of what joins a child to the daemon. Our ends are non-blocking files,
// the child's are plain descriptors.
type stdio struct {
	child   []int    // descriptors 0, 1 and 2 of the child
	stdin   *os.File // nil when the child reads from /dev/null
	master  *os.File // nil without a terminal
	sources []source
}

func openPipes(withStdin bool) (*stdio, error) {
	ends := &stdio{}
	err := ends.addStdin(withStdin)
	for _, from := range []stream{stdout, stderr} {
		if err == nil {
			err = ends.addOutput(from)
		}
	}
	if err != nil {
		ends.closeChild()
		ends.closeOurs()
		return nil, err
	}
	return ends, nil
}

func openTerminal(size pty.Size, owner uint32) (*stdio, error) {
	master, terminal, err := pty.Open(size, owner)
	if err != nil {
		return nil, err
	}
	return &stdio{
		child:   []int{terminal, terminal, terminal},
		master:  master,
		sources: []source{{master, fromTerminal}},
	}, nil
}

func (s *stdio) addStdin(open bool) error {
	if !open {
		null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			s.child = append(s.child, null)
		}
		return err
	}
	ends, err := newPipe()
	if err != nil {
		return err
	}
	s.child = append(s.child, ends[0])
	s.stdin, err = ours(ends[1])
	return err
}

func (s *stdio) addOutput(from stream) error {
	ends, err := newPipe()
	if err != nil {
		return err
	}
	s.child = append(s.child, ends[1])
	file, err := ours(ends[0])
	s.sources = append(s.sources, source{file, from})
	return err
}

func newPipe() (ends [2]int, err error) {
	err = unix.Pipe2(ends[:], unix.O_CLOEXEC)
	return ends, err
}

func ours(fd int) (*os.File, error) {
	err := unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "pipe"), err
}

func (s *stdio) descriptors() []uintptr {
	out := make([]uintptr, len(s.child))
	for i, fd := range s.child {
		out[i] = uintptr(fd)
	}
	return out
}

// closeChild closes our copies of the child's ends, or we would never see the end of them.
func (s *stdio) closeChild() {
	for i, fd := range s.child {
		if i == 0 || fd != s.child[0] { // a terminal is one descriptor three times
			unix.Close(fd)
		}
	}
	s.child = nil
}

func (s *stdio) closeOurs() {
	if s.stdin != nil {
		s.stdin.Close()
	}
	for _, from := range s.sources {
		from.file.Close()
	}
}
