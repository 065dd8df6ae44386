package account

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// RequestedName is the user that an "Authorization: Basic" header names, or "" when the
// header is absent or is not of that kind. The password says nothing: the access token
// has decided who may call.
func RequestedName(header http.Header) string {
	kind, encoded, found := strings.Cut(header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(kind, "basic") {
		return ""
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return ""
	}
	name := string(decoded)
	if end := strings.LastIndexByte(name, ':'); end >= 0 { // a name may be "user:group"
		name = name[:end]
	}
	return name
}

// ForRequest is the user on whose behalf a Connect call works: the one that its header
// names, else the default one.
func (b *Book) ForRequest(header http.Header, defaultName string) (User, error) {
	name := RequestedName(header)
	if name == "" {
		name = defaultName
	}
	return b.Lookup(name)
}
