package watch

import (
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"warren.dev/guestd/internal/journal"
)

const logger = "watch"

// interest is the same for every directory, since a second watch on one replaces the first.
const interest = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_MODIFY |
	unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// hub reads the kernel's events and hands each to the watchers of its directory.
type hub struct {
	file     *os.File
	describe Describe
	log      *journal.Journal
	done     chan struct{}
	queued   atomic.Int64

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	dirs     map[int32]map[*watcher]struct{}
	maxDirs  int
	uploads  map[uint32]upload // by the cookie of the rename
	moves    []move            // directories moved away, perhaps to where we see them again
	sequence uint64
}

// upload is the first half of a rename from a hidden name.
type upload struct{ overwrites, empty bool }

// move is a directory that left its place; unless it turns up again by the deadline, its
// watches are dropped.
type move struct {
	watcher  *watcher
	left     map[int32]uint64 // watch descriptors below it, with their sequence
	deadline time.Time
}

func newHub(describe Describe, log *journal.Journal) (*hub, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	h := &hub{
		file: os.NewFile(uintptr(fd), "inotify"), describe: describe, log: log, done: make(chan struct{}), maxDirs: maxDirs,
		watchers: map[*watcher]struct{}{}, dirs: map[int32]map[*watcher]struct{}{}, uploads: map[uint32]upload{},
	}
	go h.run()
	return h, nil
}

func (h *hub) close() {
	_ = h.file.Close()
	<-h.done
}

func (h *hub) start(w *watcher) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers[w] = struct{}{}
	return w.follow("", silently)
}

func (h *hub) stop(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
	for wd := range w.dirs {
		w.unsubscribe(wd)
	}
	h.moves = dropMoves(h.moves, w)
	w.queue.close()
}

func dropMoves(moves []move, w *watcher) []move {
	var kept []move
	for _, m := range moves {
		if m.watcher != w {
			kept = append(kept, m)
		}
	}
	return kept
}

func (h *hub) run() {
	defer close(h.done)
	buf := make([]byte, readBytes)
	for {
		n, err := h.file.Read(buf)
		switch {
		case err == nil:
			h.dispatch(buf[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, os.ErrClosed):
			return
		default:
			h.log.Warn(logger, "watching has failed", map[string]string{"error": err.Error()})
			h.failAll(internal("cannot go on watching: %s", err))
			return
		}
		h.settleMoves(time.Now())
	}
}

func (h *hub) failAll(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.queue.fail(err)
	}
}

func (h *hub) dispatch(buf []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(buf) > 0 {
		event, rest, ok := parseRaw(buf)
		if !ok {
			return
		}
		buf = rest
		h.handle(event)
	}
}

func (h *hub) handle(event rawEvent) {
	if event.mask&unix.IN_Q_OVERFLOW != 0 {
		h.overflow()
		return
	}
	if event.mask&unix.IN_IGNORED != 0 { // the directory is gone
		for w := range h.dirs[event.wd] {
			delete(w.dirs, event.wd)
		}
		delete(h.dirs, event.wd)
		return
	}
	if overwrites, empty, hidden := parseHidden(event.name); hidden {
		if event.mask&unix.IN_MOVED_FROM != 0 {
			if len(h.uploads) >= maxMoves {
				clear(h.uploads)
			}
			h.uploads[event.cookie] = upload{overwrites, empty}
		}
		return
	}
	var arrived *upload
	if event.mask&unix.IN_MOVED_TO != 0 {
		if up, ok := h.uploads[event.cookie]; ok {
			delete(h.uploads, event.cookie)
			arrived = &up
		}
	}
	for w := range h.dirs[event.wd] {
		w.receive(event, arrived)
	}
}

// overflow: the kernel dropped events, among them perhaps new directories.
func (h *hub) overflow() {
	h.log.Warn(logger, "the kernel dropped events of watched directories", nil)
	for w := range h.watchers {
		w.queue.lose()
		if err := w.follow("", silently); err != nil {
			w.queue.fail(err)
		}
	}
}

// settleMoves drops the watches of directories that moved out of sight, and asks to be
// called again while some are undecided.
func (h *hub) settleMoves(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.moves) > maxMoves || (len(h.moves) > 0 && !h.moves[0].deadline.After(now)) {
		m := h.moves[0]
		h.moves = h.moves[1:]
		for wd, sequence := range m.left {
			if sub, ok := m.watcher.dirs[wd]; ok && sub.sequence == sequence {
				m.watcher.unsubscribe(wd)
			}
		}
	}
	var deadline time.Time // none
	if len(h.moves) > 0 {
		deadline = h.moves[0].deadline
	}
	_ = h.file.SetReadDeadline(deadline) // fails only when the file is closed, which Read tells
}

// rawEvent is one struct inotify_event.
type rawEvent struct {
	wd     int32
	mask   uint32
	cookie uint32
	name   string
}

// parseRaw takes the first event off buf.
func parseRaw(buf []byte) (event rawEvent, rest []byte, ok bool) {
	if len(buf) < unix.SizeofInotifyEvent {
		return event, nil, false
	}
	size := int(nativeUint32(buf[12:]))
	end := unix.SizeofInotifyEvent + size
	if size < 0 || end > len(buf) {
		return event, nil, false
	}
	name, _, _ := strings.Cut(string(buf[unix.SizeofInotifyEvent:end]), "\x00")
	return rawEvent{
		wd: int32(nativeUint32(buf)), mask: nativeUint32(buf[4:]), cookie: nativeUint32(buf[8:]), name: name,
	}, buf[end:], true
}
