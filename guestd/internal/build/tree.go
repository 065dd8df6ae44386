package build

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kinds of a record. A record is its kind, lengths and numbers of fixed size, a name, for links a target, and for
// FILE the content. Between DIR and UP lie the entries of that folder, in order of their names. The reader
// is engine/oci/tree.py.
const (
	kindDir     = 'D' // a folder; its entries follow
	kindUp      = 'U' // the end of a folder
	kindFile    = 'F' // a file with its content
	kindSame    = 'S' // a file that is as it was in the image: no content
	kindSymlink = 'L'
	kindLink    = 'H' // a hard link: target is the path of an earlier file, from the root
	kindFIFO    = 'P'
	kindKeep    = 'K' // not part of the tree: whatever the image has there stays
	kindEnd     = 'E'
)

// ServeTree writes the whole tree of files. Those that have not changed since `since`, in nanoseconds, come without
// their content: the caller has the image. It goes by the time of the last change of any kind, which programs cannot
// set.
func (s *Service) ServeTree(w http.ResponseWriter, r *http.Request) {
	since, err := strconv.ParseInt(r.URL.Query().Get("since"), 10, 64)
	if err != nil {
		refuse(w, http.StatusBadRequest, "cannot read 'since'; give nanoseconds")
		return
	}
	mounts, err := mountPoints("/proc/self/mounts")
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	for _, folder := range s.own {
		mounts[folder] = true
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	out := bufio.NewWriterSize(w, copyBuffer)
	t := &treeWriter{root: s.root, out: out, since: since, keep: mounts, links: map[inode]string{}, block: make([]byte, copyBuffer)}
	err = t.folder("")
	if err == nil {
		err = t.record(kindEnd, "", "", syscall.Stat_t{}, 0)
	}
	if err = errors.Join(err, out.Flush()); err != nil {
		panic(http.ErrAbortHandler) // the caller sees a stream without its end
	}
}

func mountPoints(file string) (map[string]bool, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot list mounts: %w", err)
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] != "/" {
			found[unescape(fields[1])] = true
		}
	}
	return found, nil
}

// unescape undoes the octal escapes of the kernel's list.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}

type inode struct{ dev, ino uint64 }

type treeWriter struct {
	root  string
	out   *bufio.Writer
	since int64
	keep  map[string]bool
	links map[inode]string // files with several names that were written: where
	block []byte
}

// folder writes the folder at place, "" for the root, whose own record has no name.
func (t *treeWriter) folder(place string) error {
	full := path.Join(t.root, place)
	var st syscall.Stat_t
	if err := syscall.Lstat(full, &st); err != nil {
		return err
	}
	names, err := readNames(full)
	if err != nil {
		return err
	}
	name := path.Base(place)
	if place == "" {
		name = ""
	}
	if err := t.record(kindDir, name, "", st, 0); err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := t.entry(path.Join(place, name)); err != nil {
			return err
		}
	}
	return t.record(kindUp, "", "", syscall.Stat_t{}, 0)
}

func (t *treeWriter) entry(place string) error {
	name := path.Base(place)
	if t.keep["/"+place] {
		return t.record(kindKeep, name, "", syscall.Stat_t{}, 0)
	}
	var st syscall.Stat_t
	full := path.Join(t.root, place)
	if err := syscall.Lstat(full, &st); err != nil {
		return err
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return t.folder(place)
	case syscall.S_IFREG:
		return t.file(place, st)
	case syscall.S_IFLNK:
		target, err := os.Readlink(full)
		if err != nil {
			return err
		}
		return t.record(kindSymlink, name, target, st, 0)
	case syscall.S_IFIFO:
		return t.record(kindFIFO, name, "", st, 0)
	}
	return nil // a socket ends with its server, and devices cannot be made
}

func (t *treeWriter) file(place string, st syscall.Stat_t) error {
	name := path.Base(place)
	if st.Ctim.Nano() <= t.since {
		return t.record(kindSame, name, "", st, uint64(st.Size))
	}
	if st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, known := t.links[key]; known {
			return t.record(kindLink, name, first, st, 0)
		}
		t.links[key] = place
	}
	if err := t.record(kindFile, name, "", st, uint64(st.Size)); err != nil {
		return err
	}
	return t.content(path.Join(t.root, place), st.Size)
}

func (t *treeWriter) content(full string, size int64) error {
	file, err := os.OpenFile(full, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	written, err := io.CopyBuffer(onlyWriter{t.out}, io.LimitReader(file, size), t.block)
	if err == nil && written != size {
		err = fmt.Errorf("cannot read %s: it became shorter", full)
	}
	return err
}

// record writes kind, mode, uid, gid, mtime in nanoseconds, size, the lengths of name and target, name, target.
func (t *treeWriter) record(kind byte, name, target string, st syscall.Stat_t, size uint64) error {
	head := make([]byte, 0, 64+len(name)+len(target))
	head = append(head, kind)
	head = binary.BigEndian.AppendUint32(head, st.Mode&modeBits)
	head = binary.BigEndian.AppendUint32(head, st.Uid)
	head = binary.BigEndian.AppendUint32(head, st.Gid)
	head = binary.BigEndian.AppendUint64(head, uint64(st.Mtim.Nano()))
	head = binary.BigEndian.AppendUint64(head, size)
	head = binary.BigEndian.AppendUint16(head, uint16(len(name)))
	head = binary.BigEndian.AppendUint16(head, uint16(len(target)))
	head = append(head, name...)
	head = append(head, target...)
	_, err := t.out.Write(head)
	return err
}
