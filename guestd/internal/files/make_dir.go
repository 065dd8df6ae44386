package files

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem"
	"warren.dev/guestd/internal/account"
)

const newDirMode = 0o755

// MakeDir makes a directory with its parents, owned by the user.
func (s *Service) MakeDir(_ context.Context, req *connect.Request[filesystem.MakeDirRequest]) (*connect.Response[filesystem.MakeDirResponse], error) {
	user, path, err := s.locate(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil {
		return nil, rpcError(occupied(path, info.IsDir()))
	}
	made, err := ensureDir(path, user)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, rpcError(internal("cannot make directory '%s': a part of it is not a directory", path))
	}
	if err != nil {
		return nil, rpcError(faultOf(err, path))
	}
	if !made { // somebody else was faster
		return nil, rpcError(occupied(path, true))
	}
	entry, err := s.entry(path)
	if err != nil {
		return nil, rpcError(faultOf(err, path))
	}
	return connect.NewResponse(&filesystem.MakeDirResponse{Entry: entry}), nil
}

func occupied(path string, isDir bool) *fault {
	if !isDir {
		return invalid("cannot make directory '%s': path already exists but it is not a directory", path)
	}
	f := invalid("directory already exists: %s", path)
	f.status, f.code = 409, connect.CodeAlreadyExists
	return f
}

// ensureDir makes path and the parents it lacks. It reports whether it made path itself.
func ensureDir(path string, user account.User) (bool, error) {
	path = filepath.Clean(path)
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return false, &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
		}
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	var lacking []string // innermost first
	for dir := path; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		lacking = append(lacking, dir)
	}
	made := false
	for i := len(lacking) - 1; i >= 0; i-- {
		var err error
		if made, err = makeOwned(lacking[i], user); err != nil {
			return false, err
		}
	}
	return made, nil
}

func makeOwned(dir string, user account.User) (bool, error) {
	if err := os.Mkdir(dir, newDirMode); err != nil {
		if info, statErr := os.Stat(dir); errors.Is(err, fs.ErrExist) && statErr == nil && info.IsDir() {
			return false, nil
		}
		return false, err
	}
	// Lchown: whatever takes the place of the new directory, a link there is not followed.
	return true, os.Lchown(dir, int(user.UID), int(user.GID))
}
