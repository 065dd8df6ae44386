// Package files serves the file system of the sandbox: the unary verbs of the
// Filesystem service, and the plain HTTP routes that move whole files.
//
// All work is done as root; the user of a request only decides what a path means and
// who owns what is made.
package files

import (
	"net/http"
	"sync"

	"warren.dev/guestd/gen/filesystem/filesystemconnect"
	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/state"
	"warren.dev/guestd/internal/watch"
)

// Service implements the Filesystem service and the /files routes.
type Service struct {
	*watch.Service // WatchDir, CreateWatcher, GetWatcherEvents, RemoveWatcher

	state *state.State
	book  *account.Book
	log   *journal.Journal

	transfers chan struct{} // one token for each upload or download that holds a buffer
	staging   sync.Map      // paths of temporary files now being filled: string -> struct{}
}

var _ filesystemconnect.FilesystemHandler = (*Service)(nil)

const logger = "files"

// New returns the service. Close ends its watchers.
func New(st *state.State, book *account.Book, log *journal.Journal) *Service {
	s := &Service{state: st, book: book, log: log, transfers: make(chan struct{}, maxTransfers)}
	s.Service = watch.New(s.resolveRPC, s.describe, log)
	return s
}

// resolveRPC finds the path that a Connect call means.
func (s *Service) resolveRPC(header http.Header, path string) (string, error) {
	_, resolved, err := s.locate(header, path)
	return resolved, err
}

// locate finds the user and the path that a Connect call means.
func (s *Service) locate(header http.Header, path string) (account.User, string, error) {
	user, err := s.book.ForRequest(header, s.state.DefaultUser())
	if err != nil {
		return user, "", rpcError(unauthorised(err.Error()))
	}
	resolved, err := user.Resolve(path, s.state.DefaultWorkdir())
	if err != nil {
		return user, "", rpcError(invalid("%s", err))
	}
	return user, resolved, nil
}
