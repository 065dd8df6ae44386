// Package pty makes pseudo-terminals for interactive processes. It speaks to the kernel
// itself: github.com/creack/pty leaves the master in blocking mode, where every terminal
// would hold a thread and a reader could not be woken.
package pty

import (
	"errors"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Programs take 0x0 badly; these are what a terminal without a size has always been.
const (
	defaultCols = 80
	defaultRows = 24
)

// ErrSize says that a size does not fit into the kernel's 16 bits.
var ErrSize = errors.New("cannot set the terminal size; columns and rows must be at most 65535")

// Size is what a client asked for; zero means the default.
type Size struct{ Cols, Rows uint32 }

// Open makes a terminal. master is our non-blocking end; terminal is a plain descriptor
// for the child, to be closed here once the child has it. The terminal belongs to owner:
// programs such as tmux open it again by its name.
func Open(size Size, owner uint32) (master *os.File, terminal int, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	terminal, err = open(fd, size, owner)
	if err != nil {
		master.Close()
		return nil, -1, err
	}
	return master, terminal, nil
}

func open(master int, size Size, owner uint32) (int, error) {
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return -1, err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	if err := setSize(master, size); err != nil {
		return -1, err
	}
	path := "/dev/pts/" + strconv.Itoa(number)
	terminal, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if os.Geteuid() == 0 {
		if err := unix.Fchown(terminal, int(owner), -1); err != nil {
			unix.Close(terminal)
			return -1, err
		}
	}
	return terminal, nil
}

// Resize tells the foreground process about a new size.
func Resize(master *os.File, size Size) error {
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = setSize(int(fd), size) }); err != nil {
		return err
	}
	return failed
}

func setSize(fd int, size Size) error {
	if size.Cols > math.MaxUint16 || size.Rows > math.MaxUint16 {
		return ErrSize
	}
	if size.Cols == 0 {
		size.Cols = defaultCols
	}
	if size.Rows == 0 {
		size.Rows = defaultRows
	}
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(size.Cols), Row: uint16(size.Rows)})
}
