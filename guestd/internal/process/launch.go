package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"warren.dev/guestd/internal/reap"
)

const (
	// Exit codes that shells give to commands they cannot run.
	exitNotFound    = 127
	exitNotRunnable = 126
	// childOOMScore makes the kernel prefer a command to the daemon, which stays at 0, by half of
	// the memory there is.
	childOOMScore = "500"
	// startTries is how often a start is tried for which the kernel has no process left, each
	// time after a bomb was ended. What was killed takes a moment to be gone.
	startTries  = 20
	startPause  = 25 * time.Millisecond
	scriptShell = "/bin/sh"
)

// cannotRun says that the command itself could not be run. Clients see that as the end of
// a process, as from a shell, and not as an error of the call.
type cannotRun struct {
	exit   int
	reason string
}

func (e *cannotRun) Error() string { return e.reason }

// launch starts cmd with the child's ends of io and closes those.
func launch(reaper *reap.Reaper, cmd *command, io *stdio, relieve func() bool) (*reap.Child, error) {
	defer io.closeChild()
	path, err := cmd.executable()
	if err != nil {
		return nil, cmd.failure(err)
	}
	attributes := &syscall.ProcAttr{
		Dir:   cmd.dir,
		Env:   cmd.env,
		Files: io.descriptors(),
		Sys:   cmd.attributes(io.master != nil),
	}
	start := func() (*reap.Child, error) {
		return reaper.Start(func() (int, error) {
			pid, err := syscall.ForkExec(path, cmd.argv, attributes)
			if err == syscall.ENOEXEC {
				// A script without a first line that names its interpreter: execvp and every shell do this.
				return syscall.ForkExec(scriptShell, append([]string{scriptShell, path}, cmd.argv[1:]...), attributes)
			}
			return pid, err
		})
	}
	child, err := start()
	if err == syscall.EAGAIN && relieve() {
		for try := 1; err == syscall.EAGAIN && try < startTries; try++ {
			time.Sleep(startPause)
			child, err = start()
		}
	}
	if err != nil {
		return nil, cmd.failure(err)
	}
	child.WhileAlive(exposeToOOM)
	return child, nil
}

// attributes puts the child into a group of its own, so that a kill reaches all of it,
// and a terminal's child into a session that the terminal controls.
func (c *command) attributes(onTerminal bool) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: !onTerminal, Setsid: onTerminal, Setctty: onTerminal}
	if os.Geteuid() == 0 {
		attributes.Credential = &syscall.Credential{Uid: c.user.UID, Gid: c.user.GID, Groups: c.user.Groups}
	}
	return attributes
}

// failure sorts what the kernel said into the command's fault, the caller's and ours.
func (c *command) failure(err error) error {
	switch {
	case errors.Is(err, syscall.EACCES) && !mayEnter(c.user, c.dir):
		return invalid(fmt.Errorf("cwd '%s' cannot be entered by user '%s'", c.dir, c.user.Name))
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		return &cannotRun{exitNotFound, fmt.Sprintf("guestd: cannot run '%s': %v\n", c.name, err)}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.ETXTBSY),
		errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG):
		return &cannotRun{exitNotRunnable, fmt.Sprintf("guestd: cannot run '%s': %v\n", c.name, err)}
	case errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.EINVAL):
		return invalid(fmt.Errorf("cannot run '%s': %w", c.name, err))
	case errors.Is(err, syscall.EAGAIN):
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf(
			"cannot run '%s': the sandbox's processes and threads (pids) have reached their limit; end some first", c.name))
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return tooManyFiles(fmt.Sprintf("run '%s'", c.name))
	case errors.Is(err, syscall.ENOMEM):
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf(
			"cannot run '%s': the sandbox has no memory left; end some processes first", c.name))
	}
	return internal(fmt.Errorf("cannot run '%s': %w", c.name, err))
}

// exposeToOOM is best effort: not every kernel knows the file.
func exposeToOOM(pid int) {
	fd, err := syscall.Open("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	_, _ = syscall.Write(fd, []byte(childOOMScore))
}
