package server

import (
	"encoding/json"
	"net/http"
)

// fault is the body of every refusal. The code is a number on purpose: Connect clients,
// which expect a word there, then fall back to the status line.
type fault struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func refuse(w http.ResponseWriter, status int, message string) {
	reply(w, status, fault{status, message})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone; there is nobody to tell
}
