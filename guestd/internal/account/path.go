package account

import (
	"fmt"
	"path/filepath"
	"strings"
)

// PathError says that a path has no meaning for the user.
type PathError struct{ Reason string }

func (e *PathError) Error() string { return e.Reason }

// Resolve turns a path of a request into an absolute one. An empty path is the default
// working directory (or the home when there is none), "~" is the home, a relative path
// starts at the home, and an absolute one is taken as it stands.
func (u User) Resolve(path, defaultWorkdir string) (string, error) {
	if path == "" {
		path = defaultWorkdir
	}
	if strings.ContainsRune(path, 0) {
		return "", &PathError{Reason: "cannot use a path with a NUL byte in it; leave it out"}
	}
	switch {
	case path == "" || path == "~":
		return filepath.Clean(u.Home), nil
	case strings.HasPrefix(path, "~/"):
		return filepath.Join(u.Home, path[2:]), nil
	case path[0] == '~':
		return "", &PathError{Reason: fmt.Sprintf(
			"cannot expand '%s': only '~' and '~/...' of the user itself are known; use an absolute path", path)}
	case path[0] == '/':
		return path, nil
	}
	return filepath.Join(u.Home, path), nil
}
