// Package journal keeps the latest events of the daemon in memory for the platform to fetch.
// It never sees values of environment variables, tokens or file contents.
package journal

import (
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// MaxEntries bounds the ring: some minutes of a busy sandbox, about a megabyte.
	MaxEntries = 2000
	// MaxMessageBytes bounds a message or a field: the sandbox chooses command lines.
	MaxMessageBytes = 4096
)

// Entry is one event.
type Entry struct {
	Seq       uint64            `json:"seq"`
	Timestamp string            `json:"timestamp"`
	Level     string            `json:"level"`
	Logger    string            `json:"logger"`
	Message   string            `json:"message"`
	Fields    map[string]string `json:"fields"`
}

// Page is what a reader gets: entries in order, and how many it missed since its last call.
type Page struct {
	Entries []Entry `json:"entries"`
	Dropped uint64  `json:"dropped"`
}

// Journal is a bounded ring, safe for concurrent use.
type Journal struct {
	mu   sync.Mutex
	now  func() time.Time
	ring []Entry // the entry with sequence number n lies at (n-1) % MaxEntries
	last uint64
}

// New returns an empty journal that reads the time from now.
func New(now func() time.Time) *Journal { return &Journal{now: now} }

// Info notes something that is as it should be.
func (j *Journal) Info(logger, message string, fields map[string]string) {
	j.add("info", logger, message, fields)
}

// Warn notes something that somebody may want to look into.
func (j *Journal) Warn(logger, message string, fields map[string]string) {
	j.add("warn", logger, message, fields)
}

func (j *Journal) add(level, logger, message string, fields map[string]string) {
	entry := Entry{Level: level, Logger: logger, Message: Cut(message, MaxMessageBytes), Fields: map[string]string{}}
	for name, value := range fields {
		if value == "" {
			continue // nothing to say
		}
		entry.Fields[name] = Cut(value, MaxMessageBytes)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	entry.Seq = j.last
	entry.Timestamp = j.now().UTC().Format(time.RFC3339Nano)
	if len(j.ring) < MaxEntries {
		j.ring = append(j.ring, entry)
		return
	}
	j.ring[(j.last-1)%MaxEntries] = entry
}

// After returns up to limit entries that came after the entry with sequence number seq.
func (j *Journal) After(seq uint64, limit int) Page {
	j.mu.Lock()
	defer j.mu.Unlock()
	page := Page{Entries: []Entry{}}
	if seq > j.last {
		seq = 0 // the reader knows an earlier life of this daemon
	}
	oldest := j.last - uint64(len(j.ring)) // sequence number just before the oldest one kept
	if seq < oldest {
		page.Dropped = oldest - seq
		seq = oldest
	}
	for next := seq + 1; next <= j.last && len(page.Entries) < limit; next++ {
		page.Entries = append(page.Entries, j.ring[(next-1)%MaxEntries])
	}
	return page
}

// Cut shortens text to at most limit bytes of valid UTF-8 and marks that it did.
func Cut(text string, limit int) string {
	const mark = "…"
	if len(text) <= limit {
		return text
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}
