package files

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/watch"
)

// staged is a file that has been received; temp is "" when there is nothing left to do.
type staged struct {
	place
	user account.User
	temp string
}

// stage receives content into a temporary file beside its final place. The first block is
// read before the file is made, for the name tells watchers whether anything was written.
func (s *Service) stage(to place, user account.User, metadata map[string]string, content io.Reader, block []byte) (*staged, error) {
	first, readErr := fill(content, block)
	if readErr != nil && !errors.Is(readErr, io.EOF) {
		return nil, readErr
	}
	rest := content
	if readErr != nil {
		rest = nil
	}
	entry := &staged{place: to, user: user}
	if to.inPlace {
		return entry, writeInPlace(to, user, metadata, block, first, rest)
	}
	temp := filepath.Join(filepath.Dir(to.final), watch.HiddenName(to.exists, first == 0))
	s.staging.Store(temp, struct{}{})
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		s.staging.Delete(temp)
		if to.exists && isClosedDir(err) {
			return entry, writeInPlace(to, user, metadata, block, first, rest)
		}
		return nil, err
	}
	entry.temp = temp
	err = fillStaged(file, entry, metadata, block, first, rest)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		s.unstage(entry)
		return nil, err
	}
	return entry, nil
}

func fillStaged(file *os.File, entry *staged, metadata map[string]string, block []byte, first int, rest io.Reader) error {
	if err := file.Chown(int(entry.user.UID), int(entry.user.GID)); err != nil {
		return err
	}
	if entry.exists {
		copyAttributes(entry.final, int(file.Fd()))
	}
	if err := replaceMetadata(int(file.Fd()), entry.shown, metadata); err != nil {
		return err
	}
	if err := writeBlocks(file, block, first, rest); err != nil {
		return err
	}
	return file.Chmod(entry.mode)
}

// commit puts a staged file in its place.
func (s *Service) commit(entry *staged, block []byte) error {
	if entry.temp == "" {
		return nil
	}
	err := os.Rename(entry.temp, entry.final)
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) {
		// The file is a mount point, as /etc/hosts may be: only its content can change.
		err = s.copyOver(entry, block)
		s.unstage(entry)
		return err
	}
	if err == nil {
		s.staging.Delete(entry.temp)
		entry.temp = ""
	}
	return err
}

func (s *Service) copyOver(entry *staged, block []byte) error {
	from, err := os.Open(entry.temp)
	if err != nil {
		return err
	}
	defer from.Close()
	metadata := readMetadata(entry.temp)
	first, err := fill(from, block)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return writeInPlace(entry.place, entry.user, metadata, block, first, from)
}

// unstage removes the temporary file of an upload that did not come to its end.
func (s *Service) unstage(entry *staged) {
	if entry.temp == "" {
		return
	}
	_ = os.Remove(entry.temp) // whatever removed it before us did our work
	s.staging.Delete(entry.temp)
	entry.temp = ""
}

func (s *Service) isStaging(path string) bool {
	_, found := s.staging.Load(path)
	return found
}

// isClosedDir: a file may be writable in a directory that is not, for example one that
// is mounted into a read-only tree.
func isClosedDir(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}

// writeInPlace writes through an existing file. O_NONBLOCK keeps a pipe without a reader,
// or one that is never read, from holding the daemon.
func writeInPlace(to place, user account.User, metadata map[string]string, block []byte, first int, rest io.Reader) error {
	file, err := os.OpenFile(to.final, os.O_WRONLY|os.O_TRUNC|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, syscall.ENXIO) {
		return invalid("cannot write '%s': it is a socket, or a pipe that nobody reads", to.shown)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && !isKernelFile(to.final) {
		if err := file.Chown(int(user.UID), int(user.GID)); err != nil {
			return err
		}
		if err := replaceMetadata(int(file.Fd()), to.shown, metadata); err != nil {
			return err
		}
	} else if len(metadata) > 0 {
		return internal("cannot store metadata of '%s': it is no ordinary file; leave the metadata out", to.shown)
	}
	err = writeBlocks(file, block, first, rest)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return invalid("cannot write '%s': it took nothing for %s", to.shown, specialWriteTimeout)
	}
	return err
}

// writeBlocks writes the first bytes of block, then the rest, in whole blocks.
func writeBlocks(file *os.File, block []byte, first int, rest io.Reader) error {
	for n := first; ; {
		if n > 0 { // some kernel files take an empty write for a value
			_ = file.SetWriteDeadline(time.Now().Add(specialWriteTimeout)) // ordinary files have none and need none
			if _, err := file.Write(block[:n]); err != nil {
				return err
			}
		}
		if rest == nil {
			return nil
		}
		var err error
		if n, err = fill(rest, block); errors.Is(err, io.EOF) {
			rest = nil
		} else if err != nil {
			return err
		}
	}
}

// fill reads until block is full; io.EOF says that there is no more.
func fill(source io.Reader, block []byte) (int, error) {
	n := 0
	for n < len(block) {
		read, err := source.Read(block[n:])
		n += read
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
