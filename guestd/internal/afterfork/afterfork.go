// Package afterfork tells the programs of a copied sandbox that they are a copy: what they
// believed to have for themselves, random numbers above all, the other copies have too.
package afterfork

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/reap"
)

const (
	// Signal is ignored by every process that did not ask for it, so it can go to all of them.
	Signal = syscall.SIGURG
	// deadline is for all hooks together: the copy is not handed out before.
	deadline = 5 * time.Second
	// maxHooks and maxOutput bound what a folder full of hooks can cost.
	maxHooks  = 32
	maxOutput = 8 << 10
	generated = "fork"
)

// Notice is where the news go.
type Notice struct {
	// Hooks is the folder of programs to run, Run the one for the generation file.
	Hooks, Run string
	Reaper     *reap.Reaper
	Journal    *journal.Journal
	// Others lists the processes to signal; nil takes all of /proc.
	Others func() []int
}

// Tell writes the generation, signals, and runs the hooks, one after the other.
func (n *Notice) Tell() error {
	generation, err := n.generation()
	if err != nil {
		return err
	}
	others := n.Others
	if others == nil {
		others = everyone
	}
	for _, pid := range others() {
		_ = syscall.Kill(pid, Signal) // it may have ended
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for _, hook := range n.hooks() {
		n.run(ctx, hook, generation)
	}
	return nil
}

// generation is new for every copy; programs that poll see that the file's content changed.
func (n *Notice) generation() (string, error) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	generation := hex.EncodeToString(random)
	if err := os.MkdirAll(n.Run, 0o755); err != nil {
		return "", fmt.Errorf("cannot make %s: %w", n.Run, err)
	}
	partial := filepath.Join(n.Run, "."+generated+"."+generation[:8])
	if err := os.WriteFile(partial, []byte(generation+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("cannot write the generation: %w", err)
	}
	return generation, os.Rename(partial, filepath.Join(n.Run, generated))
}

func everyone() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// hooks are the executable files of the folder, in the order of their names.
func (n *Notice) hooks() []string {
	entries, _ := os.ReadDir(n.Hooks)
	var paths []string
	for _, entry := range entries {
		info, err := os.Stat(filepath.Join(n.Hooks, entry.Name()))
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && len(paths) < maxHooks {
			paths = append(paths, filepath.Join(n.Hooks, entry.Name()))
		}
	}
	return paths
}

func (n *Notice) run(ctx context.Context, path, generation string) {
	output, err := n.outcome(ctx, path, generation)
	fields := map[string]string{"hook": filepath.Base(path), "output": output}
	if err != nil {
		n.Journal.Warn("after-fork", "hook failed: "+err.Error(), fields)
		return
	}
	n.Journal.Info("after-fork", "hook ran", fields)
}

func (n *Notice) outcome(ctx context.Context, path, generation string) (string, error) {
	if ctx.Err() != nil {
		return "", errors.New("the hooks before it took all the time there is")
	}
	output, err := os.CreateTemp(n.Run, ".output-")
	if err != nil {
		return "", err
	}
	defer output.Close()
	_ = os.Remove(output.Name())
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer null.Close()
	child, err := n.Reaper.Start(func() (int, error) {
		return syscall.ForkExec(path, []string{path}, &syscall.ProcAttr{
			Dir:   "/",
			Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "WARREN_FORK=" + generation},
			Files: []uintptr{null.Fd(), output.Fd(), output.Fd()},
			Sys:   &syscall.SysProcAttr{Setpgid: true},
		})
	})
	if err != nil {
		return "", err
	}
	select {
	case <-child.Done():
	case <-ctx.Done():
		_ = child.SignalGroup(syscall.SIGKILL)
		<-child.Done()
		err = fmt.Errorf("it did not end within %s", deadline)
	}
	said := make([]byte, maxOutput)
	count, _ := output.ReadAt(said, 0)
	if status := child.Status(); err == nil && (!status.Exited() || status.ExitStatus() != 0) {
		err = fmt.Errorf("status %d", status)
	}
	return string(said[:count]), err
}
