// Package keepsake keeps the sandbox's environment in a file of root's own, over a pause
// that keeps files alone: the platform does not store it, so nobody else can bring it back.
package keepsake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	file = "envs.json"
	// maxBytes bounds what is read back of a file that the sandbox's root may have changed.
	maxBytes = 4 << 20
)

// Box is the folder that the file lies in.
type Box struct{ folder string }

// New returns a box that nothing was put into yet.
func New(folder string) *Box { return &Box{folder} }

// Put writes the variables, in place of those of last time.
func (b *Box) Put(envs map[string]string) error {
	if err := os.MkdirAll(b.folder, 0o700); err != nil {
		return fmt.Errorf("cannot make %s: %w", b.folder, err)
	}
	content, err := json.Marshal(envs)
	if err != nil {
		return err
	}
	partial, err := os.CreateTemp(b.folder, ".envs-") // mode 0600
	if err != nil {
		return fmt.Errorf("cannot keep the environment: %w", err)
	}
	_, err = partial.Write(content)
	err = errors.Join(err, partial.Sync(), partial.Close())
	if err == nil {
		err = os.Rename(partial.Name(), filepath.Join(b.folder, file))
	}
	if err != nil {
		_ = os.Remove(partial.Name())
		return fmt.Errorf("cannot keep the environment: %w", err)
	}
	return nil
}

// Take reads the variables and removes the file; nil when there is none that can be read.
func (b *Box) Take() map[string]string {
	path := filepath.Join(b.folder, file)
	kept, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	defer os.Remove(path)
	if err != nil {
		return nil
	}
	defer kept.Close()
	if info, err := kept.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	var envs map[string]string
	if json.NewDecoder(io.LimitReader(kept, maxBytes)).Decode(&envs) != nil {
		return nil
	}
	return envs
}
