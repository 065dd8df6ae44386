package process

import (
	"sync"

	processpb "warren.dev/guestd/gen/process"
)

// queuedEvents is how far a subscriber may lag before the process itself has to wait for
// it; at 32 KiB an event that is half a megabyte for the slowest client.
const queuedEvents = 16

type stream byte

const (
	stdout stream = iota
	stderr
	fromTerminal
)

// output carries what a process writes to everyone who listens. A full subscriber holds
// up the reader, and so the process: nothing is ever dropped for somebody who is there.
type output struct {
	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	latest      replay
	end         *processpb.ProcessEvent_EndEvent
	ended       chan struct{} // closed when end is set and all data has been queued
	cut         chan struct{} // closed when nobody shall wait for subscribers any more
}

type subscriber struct {
	events chan *processpb.ProcessEvent
	gone   chan struct{}
}

func newOutput() *output {
	return &output{
		subscribers: map[*subscriber]struct{}{},
		ended:       make(chan struct{}),
		cut:         make(chan struct{}),
	}
}

// subscribe joins in. It returns the latest replayBytes of what was written before, as
// events, and a subscriber that gets everything written from now on: no gap, no overlap.
func (o *output) subscribe(replayBytes int) (*subscriber, []*processpb.ProcessEvent) {
	sub := &subscriber{
		events: make(chan *processpb.ProcessEvent, queuedEvents),
		gone:   make(chan struct{}),
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.subscribers[sub] = struct{}{}
	return sub, o.latest.tail(replayBytes)
}

func (o *output) unsubscribe(sub *subscriber) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.subscribers, sub)
	close(sub.gone)
}

// publish copies bytes and blocks until each subscriber has room, is gone, or cut is closed.
func (o *output) publish(from stream, bytes []byte) {
	o.mu.Lock()
	chunk := append(make([]byte, 0, len(bytes)), bytes...)
	o.latest.add(from, chunk)
	listeners := make([]*subscriber, 0, len(o.subscribers))
	for sub := range o.subscribers {
		listeners = append(listeners, sub)
	}
	o.mu.Unlock()
	if len(listeners) == 0 {
		return
	}
	event := dataEvent(from, chunk)
	for _, sub := range listeners {
		select {
		case sub.events <- event:
		case <-sub.gone:
		case <-o.cut:
		}
	}
}

// finish tells everyone that the process has ended. No publish may come after it.
func (o *output) finish(end *processpb.ProcessEvent_EndEvent) {
	o.mu.Lock()
	o.end = end
	o.mu.Unlock()
	close(o.ended)
}

func dataEvent(from stream, bytes []byte) *processpb.ProcessEvent {
	data := &processpb.ProcessEvent_DataEvent{}
	switch from {
	case stdout:
		data.Output = &processpb.ProcessEvent_DataEvent_Stdout{Stdout: bytes}
	case stderr:
		data.Output = &processpb.ProcessEvent_DataEvent_Stderr{Stderr: bytes}
	case fromTerminal:
		data.Output = &processpb.ProcessEvent_DataEvent_Pty{Pty: bytes}
	}
	return &processpb.ProcessEvent{Event: &processpb.ProcessEvent_Data{Data: data}}
}
