package server

import (
	"crypto/subtle"
	"net/http"
	"strconv"
	"time"

	"warren.dev/guestd/gen/process/processconnect"
	"warren.dev/guestd/internal/process"
)

const (
	accessTokenHeader  = "X-Access-Token"
	controlTokenHeader = "X-Warren-Control"
	timeoutHeader      = "Connect-Timeout-Ms"
	maxTimeoutDigits   = 10 // of the Connect protocol
)

// admit answers those who may not call and says whether the request may go on.
func (s *server) admit(w http.ResponseWriter, r *http.Request, needs access) bool {
	set := s.State.Snapshot()
	switch {
	case needs == token && !matches(r, accessTokenHeader, set.AccessToken):
		refuse(w, http.StatusUnauthorized, "cannot accept this request; send the sandbox's token as "+accessTokenHeader)
		return false
	case needs == control && !matches(r, controlTokenHeader, set.ControlToken):
		refuse(w, http.StatusUnauthorized, "cannot accept this request; it takes the platform's control token")
		return false
	}
	return true
}

// matches compares in constant time. No token set means that nothing is asked for.
func matches(r *http.Request, header, token string) bool {
	return token == "" || subtle.ConstantTimeCompare([]byte(r.Header.Get(header)), []byte(token)) == 1
}

// adjustTimeout gives Connect-Timeout-Ms the meaning it has on this wire: 0 is none at
// all, and on Start it is the lifetime of the process, which outlasts the stream.
func adjustTimeout(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Grpc-Timeout")
		text := r.Header.Get(timeoutHeader)
		millis, err := strconv.ParseInt(text, 10, 64)
		if err != nil || millis < 0 || len(text) > maxTimeoutDigits {
			next.ServeHTTP(w, r) // absent, or for the Connect library to refuse
			return
		}
		if millis == 0 {
			r.Header.Del(timeoutHeader)
		} else if r.URL.Path == processconnect.ProcessStartProcedure {
			r.Header.Del(timeoutHeader)
			r = process.WithLifetime(r, time.Duration(millis)*time.Millisecond)
		}
		next.ServeHTTP(w, r)
	})
}
