// Package build is what the daemon does for the build of a template: files are put in as COPY means it, all
// processes are ended between two steps, and at the end the tree is read out for the finished image.
package build

import (
	"net/http"

	"warren.dev/guestd/internal/account"
)

// Service serves the routes of a build. All of them take the control token.
type Service struct {
	book *account.Book
	// root is where the tree begins: "/" outside of tests.
	root string
	// own are folders of the daemon itself, which are no part of a template.
	own []string
	// endOthers kills every process but this one.
	endOthers func() error
}

// New returns a service for the file system of this sandbox. The own folders stay out of images.
func New(book *account.Book, own ...string) *Service {
	return &Service{book: book, root: "/", own: own, endOthers: endOthers}
}

// ServeSettle ends all processes: what a step has left running must not go on beside the next one, which would
// then not be the same when the step comes from a cache.
func (s *Service) ServeSettle(w http.ResponseWriter, _ *http.Request) {
	if err := s.endOthers(); err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
