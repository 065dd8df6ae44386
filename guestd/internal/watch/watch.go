// Package watch tells clients what changes in the directories they watch. It has two
// forms, a stream and a queue that is polled, over one shared inotify instance: the
// kernel allows few instances per user, and a sandbox may hold many watchers.
package watch

import (
	"net/http"
	"sync"
	"time"

	"warren.dev/guestd/gen/filesystem"
	"warren.dev/guestd/internal/journal"
)

const (
	// maxWatchers bounds streams and polled watchers together.
	maxWatchers = 1000
	// maxDirs bounds the directories of all recursive watches: ~1 KiB of kernel memory each.
	maxDirs = 65_536
	// maxQueued is what one watcher keeps for a client that does not come to get it; the
	// kernel's own queue has the same length.
	maxQueued = 16_384
	// maxQueuedTotal is the same over all watchers: ~0.5 KiB each with an entry.
	maxQueuedTotal = 65_536
	// maxSeen bounds the names remembered to tell a scan's findings from late events.
	maxSeen = 65_536
	// maxMoves bounds renames of which only the first half has been seen.
	maxMoves = 1024
	// moveWait is how long the second half of a rename may take to arrive.
	moveWait = 100 * time.Millisecond
	// readBytes holds some 2,000 kernel events.
	readBytes = 64 << 10

	defaultKeepalive = 90 * time.Second
	maxKeepalive     = time.Hour
)

// Locate finds the path that a call means for the user in its header; its error is ready
// for the wire.
type Locate func(header http.Header, path string) (string, error)

// Describe shows what is at a path, or nil when nothing is.
type Describe func(path string) *filesystem.EntryInfo

// Service implements the watching half of the Filesystem service.
type Service struct {
	locate   Locate
	describe Describe
	log      *journal.Journal

	mu     sync.Mutex
	hub    *hub // nil while nobody watches
	active int
	polled map[string]*watcher
}

// New returns a service without watchers.
func New(locate Locate, describe Describe, log *journal.Journal) *Service {
	return &Service{locate: locate, describe: describe, log: log, polled: map[string]*watcher{}}
}

// options are the same for both forms of a watch.
type options struct {
	recursive, includeEntry, allowNetwork bool
}

// open starts a watcher; the caller has to close it.
func (s *Service) open(path string, opts options) (*watcher, error) {
	if err := checkRoot(path, opts.allowNetwork); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.active == maxWatchers {
		s.mu.Unlock()
		return nil, exhausted("cannot start another watcher: %d are open; remove one", maxWatchers)
	}
	if s.hub == nil {
		hub, err := newHub(s.describe, s.log)
		if err != nil {
			s.mu.Unlock()
			return nil, exhausted("cannot start watching: %s; programs inside may have all that the sandbox may have "+
				"of inotify instances or open files: end some", err)
		}
		s.hub = hub
	}
	s.active++
	hub := s.hub
	s.mu.Unlock()

	w := &watcher{root: path, options: opts, hub: hub, dirs: map[int32]subscription{}, seen: map[string]struct{}{}}
	w.queue.ready = make(chan struct{}, 1)
	w.queue.total = &hub.queued
	if err := hub.start(w); err != nil {
		s.close(w)
		return nil, err
	}
	return w, nil
}

// close ends a watcher, and the kernel's instance with the last one.
func (s *Service) close(w *watcher) {
	w.hub.stop(w)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	if s.active == 0 {
		s.hub.close()
		s.hub = nil
	}
}

// Close ends all polled watchers; streams end with their requests.
func (s *Service) Close() {
	s.mu.Lock()
	polled := s.polled
	s.polled = map[string]*watcher{}
	s.mu.Unlock()
	for _, w := range polled {
		s.close(w)
	}
}
