package process

import processpb "warren.dev/guestd/gen/process"

const (
	// replayBytes is what each process keeps of its latest output: some screens of text.
	replayBytes = 64 << 10
	// maxReplayBytes is the most a client may ask for; more than is kept gives what is kept.
	maxReplayBytes = 1 << 20
	// replayPieces bounds the bookkeeping for processes that write single bytes.
	replayPieces = 1024
	// mergeBytes: pieces of one stream are joined up to this size.
	mergeBytes = 4 << 10
)

type piece struct {
	from  stream
	bytes []byte
}

// replay holds the latest output in order. The zero value is empty.
type replay struct {
	pieces []piece
	size   int
}

// add keeps chunk, which nobody may change afterwards.
func (r *replay) add(from stream, chunk []byte) {
	r.size += len(chunk)
	if last := len(r.pieces) - 1; last >= 0 && r.pieces[last].from == from &&
		len(r.pieces[last].bytes)+len(chunk) <= mergeBytes {
		r.pieces[last].bytes = append(r.pieces[last].bytes, chunk...)
	} else {
		// The capacity is cut: a later append must copy, events share these bytes.
		r.pieces = append(r.pieces, piece{from, chunk[:len(chunk):len(chunk)]})
	}
	drop := 0
	for r.size-len(r.pieces[drop].bytes) >= replayBytes || len(r.pieces)-drop > replayPieces {
		r.size -= len(r.pieces[drop].bytes)
		r.pieces[drop].bytes = nil
		drop++
	}
	r.pieces = r.pieces[drop:]
}

// tail returns the latest output, at most limit bytes of it, as events.
func (r *replay) tail(limit int) []*processpb.ProcessEvent {
	skip := max(r.size-limit, 0)
	var events []*processpb.ProcessEvent
	for _, kept := range r.pieces {
		if skip >= len(kept.bytes) {
			skip -= len(kept.bytes)
			continue
		}
		events = append(events, dataEvent(kept.from, append([]byte(nil), kept.bytes[skip:]...)))
		skip = 0
	}
	return events
}
