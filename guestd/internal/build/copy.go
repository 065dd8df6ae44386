package build

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"

	"warren.dev/guestd/internal/account"
)

const (
	newFolderMode = 0o755
	// copyBuffer is the step of reading: smaller ones cost throughput under gVisor.
	copyBuffer = 256 << 10
	// modeBits are what a COPY may set: permissions, set-id and sticky.
	modeBits = 0o7777
)

// ServeCopy unpacks an archive (tar, or tar in gzip) as COPY means it:
//
//	src    the path or pattern that the archive was made from, relative to its root
//	dest   an absolute path; with a slash at its end it is a folder
//	user   who owns what is copied: name or number, with :group if that is another
//	mode   octal; empty keeps the modes of the archive
func (s *Service) ServeCopy(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	err := s.copyIn(query.Get("src"), query.Get("dest"), query.Get("user"), query.Get("mode"), r.Body)
	if err != nil {
		refuse(w, statusOf(err), err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) copyIn(src, dest, user, mode string, body io.Reader) error {
	owner, err := s.ownerOf(user)
	if err != nil {
		return err
	}
	if !path.IsAbs(dest) {
		return invalid("cannot copy to '%s': the path is not absolute", dest)
	}
	c := &copier{owner: owner, root: s.root, made: map[string]string{}}
	if mode != "" {
		bits, err := strconv.ParseUint(mode, 8, 32)
		if err != nil || bits > modeBits {
			return invalid("cannot set mode '%s': give an octal number up to 7777", mode)
		}
		c.mode, c.forced = uint32(bits), true
	}
	c.target = newTarget(src, dest, c.isFolder(dest))
	content, err := inflated(body)
	if err != nil {
		return err
	}
	return c.unpack(tar.NewReader(content))
}

type owner struct{ uid, gid int }

// ownerOf reads name[:group], where both may be numbers.
func (s *Service) ownerOf(text string) (owner, error) {
	name, group, hasGroup := strings.Cut(text, ":")
	found := owner{}
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		found.uid, found.gid = int(id), int(id)
	} else {
		user, err := s.book.Lookup(name)
		if err != nil {
			return found, invalid("unauthenticated: %s", err)
		}
		found.uid, found.gid = int(user.UID), int(user.GID)
	}
	if !hasGroup {
		return found, nil
	}
	gid, err := s.book.GroupID(group)
	var unknown *account.UnknownGroupError
	if errors.As(err, &unknown) {
		return found, invalid("%s", err)
	}
	found.gid = int(gid)
	return found, err
}

// inflated undoes gzip where the first bytes say that it is.
func inflated(body io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(body, copyBuffer)
	magic, err := buffered.Peek(2)
	if err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		unzipped, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, invalid("cannot read the archive: %s", err)
		}
		return unzipped, nil
	}
	return buffered, nil
}

// copier puts the entries of one archive in their places.
type copier struct {
	owner  owner
	mode   uint32
	forced bool
	root   string
	target *target
	made   map[string]string // where entries of the archive went, for hard links to them
}

func (c *copier) unpack(archive *tar.Reader) error {
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			if len(c.made) == 0 {
				return invalid("cannot copy '%s': the archive has nothing of it", c.target.src)
			}
			return nil
		}
		if err != nil {
			return invalid("cannot read the archive: %s", err)
		}
		if err := c.place(header, archive); err != nil {
			return err
		}
	}
}

func (c *copier) place(header *tar.Header, content io.Reader) error {
	name, err := cleanName(header.Name)
	if err != nil {
		return err
	}
	place, moved, ok := c.target.of(name, header.Typeflag == tar.TypeDir)
	if !ok {
		return nil
	}
	if moved != "" { // a second file: what was taken for the file itself is the folder of both
		if err := c.intoFolder(moved); err != nil {
			return err
		}
	}
	full := c.at(place)
	c.made[name] = full
	if header.Typeflag == tar.TypeDir {
		return c.makeFolder(full, header)
	}
	if err := c.makeParents(path.Dir(full)); err != nil {
		return err
	}
	if err := c.clear(full); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeReg:
		return c.writeFile(full, header, content)
	case tar.TypeSymlink:
		if err := os.Symlink(header.Linkname, full); err != nil {
			return err
		}
		return os.Lchown(full, c.owner.uid, c.owner.gid)
	case tar.TypeLink:
		return c.link(header, full)
	}
	return invalid("cannot copy '%s': it is no file, folder or link", name)
}

func cleanName(name string) (string, error) {
	cleaned := path.Clean(strings.TrimPrefix(name, "./"))
	if path.IsAbs(cleaned) || cleaned == ".." || strings.HasPrefix(cleaned, "../") || strings.ContainsRune(name, 0) {
		return "", invalid("cannot copy '%s': the archive leads out of itself", name)
	}
	return cleaned, nil
}

func (c *copier) at(place string) string { return path.Join(c.root, place) }

func (c *copier) isFolder(place string) bool {
	info, err := os.Stat(c.at(place))
	return err == nil && info.IsDir()
}

// intoFolder makes room for a folder where a file was put, and moves the file into it.
func (c *copier) intoFolder(name string) error {
	old := c.made[name]
	aside := old + ".warren-copy"
	if err := os.Rename(old, aside); err != nil {
		return err
	}
	if err := c.makeParents(old); err != nil {
		return err
	}
	c.made[name] = path.Join(old, path.Base(name))
	return os.Rename(aside, c.made[name])
}

// makeParents makes folders as those of mkdir -p, which belong to the owner.
func (c *copier) makeParents(folder string) error {
	if info, err := os.Stat(folder); err == nil {
		if !info.IsDir() {
			return invalid("cannot copy into '%s': it is no folder", folder)
		}
		return nil
	}
	if err := c.makeParents(path.Dir(folder)); err != nil {
		return err
	}
	if err := os.Mkdir(folder, newFolderMode); err != nil {
		return err
	}
	return os.Lchown(folder, c.owner.uid, c.owner.gid)
}

func (c *copier) makeFolder(full string, header *tar.Header) error {
	info, err := os.Stat(full)
	if err == nil && info.IsDir() {
		return nil // its owner and mode were somebody's choice
	}
	if err == nil {
		return invalid("cannot copy '%s': a file is where its folder has to be", header.Name)
	}
	if err := c.makeParents(full); err != nil {
		return err
	}
	return os.Chmod(full, c.modeOf(header))
}

// clear makes way for a new entry; folders with something in them stay.
func (c *copier) clear(full string) error {
	info, err := os.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.IsDir() {
		return invalid("cannot copy a file over the folder '%s'", full)
	}
	if err != nil {
		return err
	}
	return os.Remove(full)
}

func (c *copier) writeFile(full string, header *tar.Header, content io.Reader) error {
	file, err := os.OpenFile(full, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.CopyBuffer(onlyWriter{file}, content, make([]byte, copyBuffer)); err != nil {
		return unreadable(err)
	}
	if err := file.Chown(c.owner.uid, c.owner.gid); err != nil {
		return err
	}
	return errors.Join(file.Chmod(c.modeOf(header)), file.Close())
}

// unreadable tells an archive that ends too early from a disk that is full.
func unreadable(err error) error {
	var known *fs.PathError
	if errors.As(err, &known) {
		return err
	}
	return invalid("cannot read the archive: %s", err)
}

// onlyWriter hides ReadFrom, for which io.CopyBuffer would leave its buffer aside.
type onlyWriter struct{ io.Writer }

func (c *copier) link(header *tar.Header, full string) error {
	name, err := cleanName(header.Linkname)
	if err != nil {
		return err
	}
	source, known := c.made[name]
	if !known {
		return invalid("cannot copy '%s': it links to '%s', which the archive does not have", header.Name, name)
	}
	return os.Link(source, full)
}

func (c *copier) modeOf(header *tar.Header) os.FileMode {
	bits := uint32(header.Mode) & modeBits
	if c.forced {
		bits = c.mode
	}
	mode := os.FileMode(bits & 0o777)
	for _, special := range []struct {
		bit  uint32
		flag os.FileMode
	}{{0o4000, os.ModeSetuid}, {0o2000, os.ModeSetgid}, {0o1000, os.ModeSticky}} {
		if bits&special.bit != 0 {
			mode |= special.flag
		}
	}
	return mode
}
