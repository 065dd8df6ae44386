package watch

import (
	"context"
	"crypto/rand"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem"
)

// CreateWatcher starts a watcher whose events wait until they are asked for.
func (s *Service) CreateWatcher(_ context.Context, req *connect.Request[filesystem.CreateWatcherRequest]) (*connect.Response[filesystem.CreateWatcherResponse], error) {
	path, err := s.locate(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	w, err := s.open(path, options{req.Msg.GetRecursive(), req.Msg.GetIncludeEntry(), req.Msg.GetAllowNetworkMounts()})
	if err != nil {
		return nil, err
	}
	id := newID()
	s.mu.Lock()
	s.polled[id] = w
	s.mu.Unlock()
	return connect.NewResponse(&filesystem.CreateWatcherResponse{WatcherId: id}), nil
}

// GetWatcherEvents returns what has happened since the last call. After a loss the call
// fails once with resource_exhausted; the next one returns the events that were kept.
func (s *Service) GetWatcherEvents(_ context.Context, req *connect.Request[filesystem.GetWatcherEventsRequest]) (*connect.Response[filesystem.GetWatcherEventsResponse], error) {
	id := req.Msg.GetWatcherId()
	s.mu.Lock()
	w, found := s.polled[id]
	s.mu.Unlock()
	if !found {
		return nil, noWatcher(id)
	}
	events, err := w.queue.take()
	if err != nil {
		s.log.Warn(logger, "a watcher lost events", map[string]string{"path": w.root, "error": err.Error()})
		return nil, err
	}
	return connect.NewResponse(&filesystem.GetWatcherEventsResponse{Events: events}), nil
}

// RemoveWatcher ends a watcher.
func (s *Service) RemoveWatcher(_ context.Context, req *connect.Request[filesystem.RemoveWatcherRequest]) (*connect.Response[filesystem.RemoveWatcherResponse], error) {
	id := req.Msg.GetWatcherId()
	s.mu.Lock()
	w, found := s.polled[id]
	delete(s.polled, id)
	s.mu.Unlock()
	if !found {
		return nil, noWatcher(id)
	}
	s.close(w)
	return connect.NewResponse(&filesystem.RemoveWatcherResponse{}), nil
}

func noWatcher(id string) error {
	return connect.NewError(connect.CodeNotFound, errorf("watcher with id %.64s not found", id))
}

const idAlphabet = "abcdefghijklmnopqrstuvwxyz012345" // 32 letters: each random byte gives one evenly

func newID() string {
	var random [20]byte
	_, _ = rand.Read(random[:]) // never fails
	for i, b := range random {
		random[i] = idAlphabet[b%32]
	}
	return "w" + string(random[:])
}
