package watch

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// Uploads arrive under a hidden name and are renamed when they are whole. To watchers
// that must look like a file that is made and written where it is, so the hidden name
// says which events stand for the rename.
const (
	hiddenPrefix   = ".guestd-upload-"
	randomHex      = 24
	markNew        = 'n'
	markOverwrite  = 'o'
	markEmpty      = 'e'
	markWithData   = 'd'
	hiddenNameSize = len(hiddenPrefix) + 3 + randomHex
)

// HiddenName returns a new name of which watchers see nothing but the final rename.
func HiddenName(overwrites, empty bool) string {
	kind, size := byte(markNew), byte(markWithData)
	if overwrites {
		kind = markOverwrite
	}
	if empty {
		size = markEmpty
	}
	var random [randomHex / 2]byte
	_, _ = rand.Read(random[:]) // never fails
	return hiddenPrefix + string([]byte{kind, size, '-'}) + hex.EncodeToString(random[:])
}

// parseHidden tells what HiddenName put into a name.
func parseHidden(name string) (overwrites, empty, ok bool) {
	if len(name) != hiddenNameSize || !strings.HasPrefix(name, hiddenPrefix) {
		return false, false, false
	}
	kind, size := name[len(hiddenPrefix)], name[len(hiddenPrefix)+1]
	if (kind != markNew && kind != markOverwrite) || (size != markEmpty && size != markWithData) {
		return false, false, false
	}
	return kind == markOverwrite, size == markEmpty, true
}

func isHidden(name string) bool {
	_, _, ok := parseHidden(name)
	return ok
}
