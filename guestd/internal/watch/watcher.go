package watch

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"warren.dev/guestd/gen/filesystem"
)

func nativeUint32(buf []byte) uint32 { return binary.NativeEndian.Uint32(buf) }

// watcher is one client's view of a directory. Its fields belong to the hub's lock.
type watcher struct {
	options
	root  string // as the client has it
	hub   *hub
	dirs  map[int32]subscription
	seen  map[string]struct{} // reported by a scan; the kernel may report them too
	queue queue
}

// subscription says where a watched directory is below the root. The sequence changes
// each time it is found, also at the same place.
type subscription struct {
	relative string
	sequence uint64
}

type tone int

const (
	silently tone = iota // what is found was there before
	aloud                // what is found is new: tell the client
)

// follow watches the directory at relative and, in a recursive watch, those below it.
func (w *watcher) follow(relative string, how tone) error {
	pending := []string{relative}
	for len(pending) > 0 {
		relative := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if err := w.subscribe(relative); err != nil {
			switch {
			case !isGone(err):
				return err
			case relative == "":
				return notFound(w.root)
			}
			continue
		}
		if w.recursive {
			pending = append(pending, w.scan(relative, how)...)
		}
	}
	return nil
}

// isGone: what was a directory is removed or replaced by now.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) ||
		errors.Is(err, syscall.ENAMETOOLONG)
}

func (w *watcher) subscribe(relative string) error {
	path := filepath.Join(w.root, relative)
	if relative != "" && !w.allowNetwork && onNetwork(path) {
		return fs.ErrNotExist // a mount below the root: its changes would not show
	}
	flags := uint32(interest)
	if relative != "" {
		flags |= unix.IN_DONT_FOLLOW
	}
	raw, err := w.hub.file.SyscallConn()
	if err != nil {
		return internal("cannot watch '%s': %s", path, err)
	}
	wd, addErr := 0, error(nil)
	if err := raw.Control(func(fd uintptr) { wd, addErr = unix.InotifyAddWatch(int(fd), path, flags) }); err != nil {
		return internal("cannot watch '%s': %s", path, err)
	}
	switch {
	case errors.Is(addErr, syscall.ENOSPC):
		return exhausted("cannot watch '%s': the kernel allows no more watched directories; watch fewer", path)
	case isGone(addErr):
		return addErr
	case addErr != nil:
		return internal("cannot watch '%s': %s", path, addErr)
	}
	h := w.hub
	h.sequence++
	w.dirs[int32(wd)] = subscription{relative: relative, sequence: h.sequence}
	if h.dirs[int32(wd)] == nil {
		h.dirs[int32(wd)] = map[*watcher]struct{}{}
	}
	h.dirs[int32(wd)][w] = struct{}{}
	if len(h.dirs) > h.maxDirs {
		w.unsubscribe(int32(wd))
		return exhausted("cannot watch more than %d directories; watch a smaller tree", h.maxDirs)
	}
	return nil
}

func (w *watcher) unsubscribe(wd int32) {
	delete(w.dirs, wd)
	h := w.hub
	delete(h.dirs[wd], w)
	if len(h.dirs[wd]) > 0 {
		return
	}
	delete(h.dirs, wd)
	if raw, err := h.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) // it may be gone with its directory
		})
	}
}

// scan looks for what is in a directory already, and returns the directories there.
func (w *watcher) scan(relative string, how tone) []string {
	flags := os.O_RDONLY | syscall.O_DIRECTORY
	if relative != "" {
		flags |= syscall.O_NOFOLLOW
	}
	dir, err := os.OpenFile(filepath.Join(w.root, relative), flags, 0)
	if err != nil {
		return nil
	}
	defer dir.Close()
	var dirs []string
	for {
		entries, err := dir.ReadDir(1024)
		for _, entry := range entries {
			if isHidden(entry.Name()) {
				continue
			}
			name := filepath.Join(relative, entry.Name())
			if how == aloud {
				w.announce(name, entry)
			}
			if entry.IsDir() {
				dirs = append(dirs, name)
			}
		}
		if err != nil || len(entries) == 0 {
			return dirs
		}
	}
}

// announce reports what was made before its directory was watched.
func (w *watcher) announce(name string, entry fs.DirEntry) {
	if len(w.seen) >= maxSeen {
		clear(w.seen)
	}
	w.seen[name] = struct{}{}
	w.report(name, filesystem.EventType_EVENT_TYPE_CREATE)
	if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		w.report(name, filesystem.EventType_EVENT_TYPE_WRITE)
	}
}

// receive turns a kernel event into what the client gets.
func (w *watcher) receive(event rawEvent, arrived *upload) {
	sub := w.dirs[event.wd]
	if event.name == "" && sub.relative != "" {
		return // its parent reports the same by name
	}
	name := filepath.Join(sub.relative, event.name)
	if name == "" {
		name = "."
	}
	_, known := w.seen[name]
	if known && event.mask&(unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_MOVED_FROM) != 0 {
		delete(w.seen, name)
	}
	scanned := known && (event.mask&unix.IN_CREATE != 0 || arrived != nil) // the scan was faster
	for _, kind := range eventTypes(event.mask, arrived) {
		if kind != filesystem.EventType_EVENT_TYPE_CREATE || !scanned {
			w.report(name, kind)
		}
	}
	if !scanned && w.recursive && event.name != "" && event.mask&unix.IN_ISDIR != 0 {
		w.receiveDir(event, name)
	}
}

func (w *watcher) receiveDir(event rawEvent, name string) {
	switch {
	case event.mask&unix.IN_MOVED_FROM != 0:
		w.hub.moves = append(w.hub.moves, move{watcher: w, left: w.below(name), deadline: time.Now().Add(moveWait)})
		return
	case event.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) == 0:
		return
	}
	how := aloud
	if event.mask&unix.IN_MOVED_TO != 0 {
		how = silently // its content moved with it
	}
	if err := w.follow(name, how); err != nil {
		w.hub.log.Warn(logger, "a watcher has ended", map[string]string{"path": w.root, "error": err.Error()})
		w.queue.fail(err)
	}
}

// below lists the watched directories at and under a name.
func (w *watcher) below(name string) map[int32]uint64 {
	found := map[int32]uint64{}
	for wd, sub := range w.dirs {
		if sub.relative == name || strings.HasPrefix(sub.relative, name+"/") {
			found[wd] = sub.sequence
		}
	}
	return found
}

func (w *watcher) report(name string, kind filesystem.EventType) {
	event := &filesystem.FilesystemEvent{Name: strings.ToValidUTF8(name, "\uFFFD"), Type: kind}
	if w.includeEntry && describable(kind) {
		event.Entry = w.hub.describe(filepath.Join(w.root, name))
	}
	w.queue.push(event)
}

// describable: of a removed or renamed path there is nothing left to describe.
func describable(kind filesystem.EventType) bool {
	return kind == filesystem.EventType_EVENT_TYPE_CREATE || kind == filesystem.EventType_EVENT_TYPE_WRITE ||
		kind == filesystem.EventType_EVENT_TYPE_CHMOD
}

// eventTypes lists what one kernel event stands for: create, rename, chmod, write, remove,
// in this order. An upload that takes its place shows as if written there step by step.
func eventTypes(mask uint32, arrived *upload) []filesystem.EventType {
	if arrived != nil {
		return arrived.eventTypes()
	}
	var types []filesystem.EventType
	for _, row := range [...]struct {
		mask uint32
		kind filesystem.EventType
	}{
		{unix.IN_CREATE | unix.IN_MOVED_TO, filesystem.EventType_EVENT_TYPE_CREATE},
		{unix.IN_MOVED_FROM | unix.IN_MOVE_SELF, filesystem.EventType_EVENT_TYPE_RENAME},
		{unix.IN_ATTRIB, filesystem.EventType_EVENT_TYPE_CHMOD},
		{unix.IN_MODIFY, filesystem.EventType_EVENT_TYPE_WRITE},
		{unix.IN_DELETE | unix.IN_DELETE_SELF, filesystem.EventType_EVENT_TYPE_REMOVE},
	} {
		if mask&row.mask != 0 {
			types = append(types, row.kind)
		}
	}
	return types
}

// eventTypes: a new file is made, gets its owner, and is written; an existing one is
// truncated, which is a write, gets its owner, and is written again.
func (u *upload) eventTypes() []filesystem.EventType {
	types := []filesystem.EventType{filesystem.EventType_EVENT_TYPE_CREATE, filesystem.EventType_EVENT_TYPE_CHMOD}
	if u.overwrites {
		types[0] = filesystem.EventType_EVENT_TYPE_WRITE
	}
	if !u.empty {
		types = append(types, filesystem.EventType_EVENT_TYPE_WRITE)
	}
	return types
}
