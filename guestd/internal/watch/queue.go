package watch

import (
	"sync"
	"sync/atomic"

	"warren.dev/guestd/gen/filesystem"
)

// queue holds the events of one watcher until its client takes them. When it is full the
// oldest event is lost, which is counted: a client has to learn that it missed something.
type queue struct {
	mu     sync.Mutex
	events []*filesystem.FilesystemEvent
	lost   int
	failed error // the watcher cannot go on
	closed bool
	ready  chan struct{} // has room for one signal
	total  *atomic.Int64 // events queued by all watchers
}

func (q *queue) push(event *filesystem.FilesystemEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.repeats(event) {
		return
	}
	if len(q.events) >= maxQueued || q.total.Load() >= maxQueuedTotal {
		q.lost++
		if len(q.events) == 0 {
			q.wake()
			return
		}
		q.events[0] = nil
		q.events = q.events[1:]
		q.total.Add(-1)
	}
	q.events = append(q.events, event)
	q.total.Add(1)
	q.wake()
}

// repeats: the kernel joins equal events that follow each other, and so does the queue, or
// a file written in small steps would fill it.
func (q *queue) repeats(event *filesystem.FilesystemEvent) bool {
	if len(q.events) == 0 {
		return false
	}
	last := q.events[len(q.events)-1]
	if last.Name != event.Name || last.Type != event.Type {
		return false
	}
	last.Entry = event.Entry
	return true
}

func (q *queue) lose() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lost++
	q.wake()
}

func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed == nil {
		q.failed = err
	}
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns what has come in. After a loss it returns an error first and keeps the
// events for the next call.
func (q *queue) take() ([]*filesystem.FilesystemEvent, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lost > 0 {
		lost := q.lost
		q.lost = 0
		return nil, exhausted("cannot deliver all events: at least %d were lost because they were not fetched in time; "+
			"look at the directory again, and fetch more often (up to %d wait)", lost, maxQueued)
	}
	events := q.events
	q.events = nil
	q.total.Add(-int64(len(events)))
	if len(events) == 0 && q.failed != nil {
		return nil, q.failed
	}
	return events, nil
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.total.Add(-int64(len(q.events)))
	q.events = nil
}
