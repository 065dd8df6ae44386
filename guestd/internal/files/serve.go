package files

import (
	"context"
	"crypto/subtle"
	"net/http"
	"time"

	"warren.dev/guestd/internal/account"
	"warren.dev/guestd/internal/signature"
)

const tokenHeader = "X-Access-Token"

// ServeFiles answers GET, HEAD and POST /files. These methods are exempt from the
// server's own check of the access token, because a signature may stand in for it.
func (s *Service) ServeFiles(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if f := s.authorise(r, signature.Read); f != nil {
			replyFault(w, f)
			return
		}
		s.download(w, r)
	case http.MethodPost:
		if f := s.authorise(r, signature.Write); f != nil {
			replyFault(w, f)
			return
		}
		s.upload(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		replyFault(w, &fault{status: http.StatusMethodNotAllowed, message: "method not allowed; use GET, HEAD or POST"})
	}
}

// authorise lets a request through that has the token or, in its place, a good signature.
// A wrong token is refused even beside a good signature: somebody is confused.
func (s *Service) authorise(r *http.Request, operation signature.Operation) *fault {
	token := s.state.AccessToken()
	if token == "" {
		return nil
	}
	if given := r.Header.Get(tokenHeader); given != "" {
		if subtle.ConstantTimeCompare([]byte(given), []byte(token)) == 1 {
			return nil
		}
		return unauthorised("access token present in header but does not match")
	}
	if err := signature.Check(r.URL.Query(), operation, token, time.Now()); err != nil {
		return unauthorised(err.Error())
	}
	return nil
}

// whose finds the user of a plain HTTP request, which names it in the query or the body.
func (s *Service) whose(username string) (account.User, *fault) {
	if username == "" {
		username = s.state.DefaultUser()
	}
	user, err := s.book.Lookup(username)
	if err != nil {
		return user, unauthorised(err.Error())
	}
	return user, nil
}

func (s *Service) resolve(user account.User, path string) (string, *fault) {
	resolved, err := user.Resolve(path, s.state.DefaultWorkdir())
	if err != nil {
		return "", invalid("%s", err)
	}
	return resolved, nil
}

// begin waits for the right to hold transfer buffers; end gives it back.
func (s *Service) begin(ctx context.Context) *fault {
	select {
	case s.transfers <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(transferWait)
	defer timer.Stop()
	select {
	case s.transfers <- struct{}{}:
		return nil
	case <-ctx.Done():
		return gone(ctx.Err())
	case <-timer.C:
		return tooMuch("cannot start the transfer: %d others are under way; try again", maxTransfers)
	}
}

func (s *Service) end() { <-s.transfers }
