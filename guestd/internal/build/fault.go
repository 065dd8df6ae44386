package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"syscall"
)

// fault is what the caller has to change; every other error is the machine's.
type fault struct{ message string }

func (f *fault) Error() string { return f.message }

func invalid(format string, args ...any) error { return &fault{fmt.Sprintf(format, args...)} }

func statusOf(err error) int {
	var known *fault
	switch {
	case errors.As(err, &known):
		return http.StatusBadRequest
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": status, "message": message}) // the caller may have gone
}
