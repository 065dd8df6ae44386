package files

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// removeBatch is how many names are read before they are removed.
	removeBatch = 256
	// maxRefills bounds how often a directory that was just emptied may be found filled
	// again: somebody may go on making files there for ever.
	maxRefills = 1000
)

// removeTree removes path and all below it, without following links. It holds two open
// directories however deep the tree is: os.RemoveAll holds one for each level, so that a
// deep tree takes all descriptors of the daemon.
func removeTree(ctx context.Context, path string) error {
	dir, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // nothing can be below what is not there
	}
	if err != nil {
		return err
	}
	r := &remover{ctx: ctx, dir: dir}
	defer func() { r.dir.Close() }()
	return r.run(filepath.Base(path))
}

// remover stands in one directory; above are those on the way back.
type remover struct {
	ctx     context.Context
	dir     *os.File
	above   []step
	refills int
}

// step is the way back from a directory: its own name, and what its parent has to be. The
// parent is reached by "..", and somebody may have moved the directory meanwhile.
type step struct {
	name     string
	dev, ino uint64
}

func (r *remover) run(name string) error {
	full, err := r.remove(name)
	if err != nil || !full {
		return err
	}
	if err := r.descend(name); err != nil {
		return err
	}
	for len(r.above) > 0 {
		if err := r.ctx.Err(); err != nil {
			return gone(err)
		}
		next, err := r.sweep()
		switch {
		case err != nil:
			return err
		case next != "":
			err = r.descend(next)
		default:
			err = r.ascend()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// remove removes one name; full says that it is a directory with something in it.
func (r *remover) remove(name string) (full bool, err error) {
	fd := int(r.dir.Fd())
	switch err := unix.Unlinkat(fd, name, 0); {
	case err == nil, errors.Is(err, unix.ENOENT):
		return false, nil
	case !errors.Is(err, unix.EISDIR):
		return false, err
	}
	switch err := unix.Unlinkat(fd, name, unix.AT_REMOVEDIR); {
	case err == nil, errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return true, nil
	default:
		return false, err
	}
}

// sweep removes what it can of the present directory. It returns the first name that has
// to be entered, or "" when nothing is left.
func (r *remover) sweep() (string, error) {
	if _, err := r.dir.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	for {
		names, err := r.dir.Readdirnames(removeBatch)
		for _, name := range names {
			if full, err := r.remove(name); err != nil || full {
				return name, err
			}
		}
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
	}
}

func (r *remover) descend(name string) error {
	var parent unix.Stat_t
	if err := unix.Fstat(int(r.dir.Fd()), &parent); err != nil {
		return err
	}
	fd, err := unix.Openat(int(r.dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return r.refill() // it was replaced; the next sweep sees by what
	}
	if err != nil {
		return err
	}
	r.above = append(r.above, step{name: name, dev: parent.Dev, ino: parent.Ino})
	r.stand(fd)
	return nil
}

func (r *remover) ascend() error {
	back := r.above[len(r.above)-1]
	fd, err := unix.Openat(int(r.dir.Fd()), "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var parent unix.Stat_t
	if err := unix.Fstat(fd, &parent); err != nil || parent.Dev != back.dev || parent.Ino != back.ino {
		_ = unix.Close(fd)
		return errMovedAway
	}
	r.above = r.above[:len(r.above)-1]
	r.stand(fd)
	full, err := r.remove(back.name)
	if err != nil || !full {
		return err
	}
	if err := r.refill(); err != nil {
		return err
	}
	return r.descend(back.name)
}

func (r *remover) stand(fd int) {
	r.dir.Close()
	r.dir = os.NewFile(uintptr(fd), "directory")
}

func (r *remover) refill() error {
	if r.refills++; r.refills > maxRefills {
		return errBusyTree
	}
	return nil
}

var (
	errMovedAway = internal("cannot go on removing: a directory was moved away meanwhile; try again")
	errBusyTree  = internal("cannot remove a directory that is being filled all the time; stop what writes there")
)
