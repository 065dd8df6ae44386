// Package reap owns wait(2) for the whole process. As PID 1 the daemon inherits every
// orphan of its sandbox, so it has to wait for any child; doing that beside os/exec would
// steal exit statuses. Here one goroutine waits and hands statuses to those who started a child.
package reap

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reaper collects exited children. Nothing else in the process may wait for any.
type Reaper struct {
	mu       sync.Mutex
	children map[int]*Child
	// A child may exit before its starter has told us its pid. While starts are under way the
	// statuses of unknown pids are kept, with the clock reading at which they came in.
	clock    uint64
	starting map[uint64]struct{}
	early    map[int]earlyExit
	wake     chan os.Signal
	stop     chan struct{}
	stopped  chan struct{}
}

type earlyExit struct {
	at     uint64
	status syscall.WaitStatus
}

// Child is a process started through the reaper.
type Child struct {
	reaper *Reaper
	pid    int
	done   chan struct{}
	exited bool               // under reaper.mu: the pid no longer is ours
	status syscall.WaitStatus // valid once done is closed
}

// New starts to reap at once.
func New() *Reaper {
	r := &Reaper{
		children: map[int]*Child{},
		starting: map[uint64]struct{}{},
		early:    map[int]earlyExit{},
		wake:     make(chan os.Signal, 1),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	signal.Notify(r.wake, syscall.SIGCHLD)
	go r.loop()
	return r
}

// Close stops reaping; children that still run are left alone.
func (r *Reaper) Close() {
	signal.Stop(r.wake)
	close(r.stop)
	<-r.stopped
}

// Start calls fork, which returns the pid of a new child, and takes that child in.
// Starts run in parallel: an exec that hangs on a dead mount holds up nobody else.
func (r *Reaper) Start(fork func() (int, error)) (*Child, error) {
	r.mu.Lock()
	r.clock++
	began := r.clock
	r.starting[began] = struct{}{}
	r.mu.Unlock()

	pid, err := fork()

	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.starting, began)
	defer r.forgetEarly()
	if err != nil {
		return nil, err
	}
	child := &Child{reaper: r, pid: pid, done: make(chan struct{})}
	if exit, known := r.early[pid]; known && exit.at > began {
		delete(r.early, pid)
		child.finish(exit.status)
		return child, nil
	}
	r.children[pid] = child
	return child, nil
}

// forgetEarly drops the statuses that no start under way can claim: those of true orphans.
func (r *Reaper) forgetEarly() {
	if len(r.starting) == 0 {
		clear(r.early)
		return
	}
	oldest := ^uint64(0)
	for began := range r.starting {
		oldest = min(oldest, began)
	}
	for pid, exit := range r.early {
		if exit.at < oldest {
			delete(r.early, pid)
		}
	}
}

func (r *Reaper) loop() {
	defer close(r.stopped)
	for {
		for r.reapOne() {
		}
		select {
		case <-r.wake:
		case <-r.stop:
			return
		}
	}
}

// reapOne looks at a dead child before it takes it away, so that the pid is still a zombie,
// and cannot belong to anyone else, while its Child is being marked as exited.
func (r *Reaper) reapOne() bool {
	pid := peek()
	if pid == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if err != syscall.EINTR {
			break
		}
	}
	if child, known := r.children[pid]; known {
		delete(r.children, pid)
		child.finish(status)
	} else if len(r.starting) > 0 {
		r.clock++
		r.early[pid] = earlyExit{at: r.clock, status: status}
	}
	return true
}

// siginfo is the part of the kernel's siginfo_t that waitid fills, on 64-bit machines.
type siginfo struct {
	signo, errno, code, pad int32
	pid                     int32
	rest                    [108]byte
}

// peek returns the pid of some dead child that nobody has waited for, or 0.
func peek() int {
	for {
		var info siginfo
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0 // ECHILD: no children at all
		}
		return int(info.pid)
	}
}

func (c *Child) finish(status syscall.WaitStatus) {
	c.exited, c.status = true, status
	close(c.done)
}

// Pid is the process id, which stays with the child until Done.
func (c *Child) Pid() int { return c.pid }

// Done is closed when the process itself has ended; its descendants may live on.
func (c *Child) Done() <-chan struct{} { return c.done }

// Status is how the process ended; valid after Done.
func (c *Child) Status() syscall.WaitStatus { return c.status }

// SignalGroup signals the process group that the child leads. The group may outlive its
// leader, and the kernel does not give the number away while one member is left.
func (c *Child) SignalGroup(sig syscall.Signal) error {
	c.reaper.mu.Lock()
	defer c.reaper.mu.Unlock()
	return syscall.Kill(-c.pid, sig)
}

// WhileAlive runs act if the pid still is the child's own, and keeps it so meanwhile.
func (c *Child) WhileAlive(act func(pid int)) {
	c.reaper.mu.Lock()
	defer c.reaper.mu.Unlock()
	if !c.exited {
		act(c.pid)
	}
}
