package journal

import "net/http"

const (
	requestHeader   = "X-Request-Id"
	maxRequestBytes = 64
)

// Request is the platform's id of a request, for the field "request" of what it causes; empty
// for a request without one, or with one that is not short and plain.
func Request(header http.Header) string {
	id := header.Get(requestHeader)
	if id == "" || len(id) > maxRequestBytes {
		return ""
	}
	for _, c := range []byte(id) {
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
		if !plain {
			return ""
		}
	}
	return id
}
