package files

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem"
)

// ListDir lists a directory and, for a depth above one, what is below it: depth first, in
// lexical order. A link is followed at the root only, and the paths keep its name.
func (s *Service) ListDir(ctx context.Context, req *connect.Request[filesystem.ListDirRequest]) (*connect.Response[filesystem.ListDirResponse], error) {
	_, path, err := s.locate(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	real, err := directory(path)
	if err != nil {
		return nil, rpcError(faultOf(err, path))
	}
	walk := &listing{service: s, ctx: ctx}
	if err := walk.add(path, real, max(req.Msg.GetDepth(), 1)); err != nil {
		return nil, rpcError(faultOf(err, path))
	}
	return connect.NewResponse(&filesystem.ListDirResponse{Entries: walk.entries}), nil
}

// directory follows links at path and makes sure that a directory is there.
func directory(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", invalid("cannot list '%s': path is not a directory", path)
	}
	return filepath.EvalSymlinks(path)
}

type listing struct {
	service *Service
	ctx     context.Context
	entries []*filesystem.EntryInfo
	bytes   int
}

func (l *listing) add(shown, real string, depth uint32) error {
	if err := l.ctx.Err(); err != nil {
		return gone(err)
	}
	names, err := readNames(real, maxListEntries-len(l.entries))
	if err != nil {
		return err
	}
	for _, name := range names {
		realPath := filepath.Join(real, name)
		info, err := os.Lstat(realPath)
		if isGone(err) || l.service.isStaging(realPath) {
			continue
		}
		if err != nil {
			return err
		}
		entry := l.service.entryOf(filepath.Join(shown, name), realPath, info)
		if err := l.keep(entry); err != nil {
			return err
		}
		if depth > 1 && info.IsDir() {
			if err := l.add(filepath.Join(shown, name), realPath, depth-1); err != nil && !isGone(err) {
				return err
			}
		}
	}
	return nil
}

func (l *listing) keep(entry *filesystem.EntryInfo) error {
	l.bytes += 96 + len(entry.Path) + len(entry.Name) + len(entry.GetSymlinkTarget())
	for key, value := range entry.Metadata {
		l.bytes += len(key) + len(value)
	}
	if l.bytes > maxListBytes || len(l.entries) == maxListEntries {
		return errTooManyEntries
	}
	l.entries = append(l.entries, entry)
	return nil
}

var errTooManyEntries = tooMuch(
	"cannot list more than %d entries or %d MiB at once; list with a smaller depth or run a command such as find",
	maxListEntries, maxListBytes>>20)

// isGone: an entry may be removed or replaced between its parent's listing and its own, and
// what lies deeper than any path can say, or is closed to root itself, cannot be shown.
func isGone(err error) bool {
	for _, known := range []error{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, syscall.ESRCH, syscall.ENAMETOOLONG, syscall.EACCES} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// readNames reads a directory in lexical order, and gives up when it has more names than
// the limit, before they fill the memory. It does not follow a link put in its place.
func readNames(path string, limit int) ([]string, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var names []string
	for {
		batch, err := dir.Readdirnames(1024)
		names = append(names, batch...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(names) > limit {
			return nil, errTooManyEntries
		}
	}
	slices.Sort(names)
	return names, nil
}
