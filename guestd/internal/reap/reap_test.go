package reap

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"warren.dev/guestd/internal/leaktest"
)

const patience = 10 * time.Second

func TestMain(m *testing.M) { leaktest.Main(m) }

func shell(script string) func() (int, error) {
	return func() (int, error) {
		return syscall.ForkExec("/bin/sh", []string{"sh", "-c", script},
			&syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}})
	}
}

func start(t *testing.T, r *Reaper, script string) *Child {
	t.Helper()
	child, err := r.Start(shell(script))
	if err != nil {
		t.Fatal(err)
	}
	return child
}

func await(t *testing.T, child *Child) syscall.WaitStatus {
	t.Helper()
	select {
	case <-child.Done():
		return child.Status()
	case <-time.After(patience):
		t.Fatalf("child %d was not reaped", child.Pid())
		return 0
	}
}

func TestEachStarterGetsTheStatusOfItsOwnChild(t *testing.T) {
	r := New()
	defer r.Close()
	var all sync.WaitGroup
	for code := range 60 {
		all.Go(func() {
			child, err := r.Start(shell("exit " + string(rune('0'+code%10))))
			if err != nil {
				t.Error(err)
				return
			}
			<-child.Done()
			if got := child.Status().ExitStatus(); got != code%10 {
				t.Errorf("exit status %d, want %d", got, code%10)
			}
		})
	}
	all.Wait()
}

func TestChildThatExitsBeforeItsStarterKnowsItsPid(t *testing.T) {
	r := New()
	defer r.Close()
	child, err := r.Start(func() (int, error) {
		pid, err := shell("exit 7")()
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			if syscall.Kill(pid, 0) == syscall.ESRCH {
				break // reaped while the start is still under way
			}
		}
		return pid, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := await(t, child).ExitStatus(); got != 7 {
		t.Errorf("exit status %d, want 7", got)
	}
}

func TestOrphansAreReapedAndDisturbNobody(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skip(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	r := New()
	defer r.Close()
	child := start(t, r, "for i in 1 2 3 4 5; do (exec sleep 0.05) & done; exit 4")
	if got := await(t, child).ExitStatus(); got != 4 {
		t.Errorf("exit status %d, want 4", got)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err == unix.ECHILD {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("orphans are left")
}

func TestSignalReachesTheWholeGroup(t *testing.T) {
	r := New()
	defer r.Close()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	child, err := r.Start(func() (int, error) {
		return syscall.ForkExec("/bin/sh", []string{"sh", "-c", "sleep 100 & sleep 100"},
			&syscall.ProcAttr{Files: []uintptr{0, uintptr(pipe[1]), 2}, Sys: &syscall.SysProcAttr{Setpgid: true}})
	})
	unix.Close(pipe[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := child.SignalGroup(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := await(t, child); !got.Signaled() || got.Signal() != syscall.SIGKILL {
		t.Errorf("status %v, want killed", got)
	}
	// The pipe ends only when the background child is dead, too.
	if count, err := unix.Read(pipe[0], make([]byte, 1)); count != 0 || err != nil {
		t.Errorf("read %d, %v; want the end", count, err)
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	r := New()
	defer r.Close()
	wanted := errors.New("no")
	if _, err := r.Start(func() (int, error) { return 0, wanted }); err != wanted {
		t.Errorf("got %v", err)
	}
	if len(r.starting) != 0 || len(r.early) != 0 || len(r.children) != 0 {
		t.Error("bookkeeping is left")
	}
}

func TestWhileAliveIsOverAfterTheEnd(t *testing.T) {
	r := New()
	defer r.Close()
	child := start(t, r, "exit 0")
	await(t, child)
	child.WhileAlive(func(int) { t.Error("called for a pid that is no longer ours") })
}

func TestStatusesOfOrphansAreForgotten(t *testing.T) {
	r := &Reaper{starting: map[uint64]struct{}{5: {}}, early: map[int]earlyExit{1: {at: 4}, 2: {at: 6}}}
	r.forgetEarly()
	if _, kept := r.early[2]; !kept || len(r.early) != 1 {
		t.Errorf("kept %v, want only the one that a start may still claim", r.early)
	}
	delete(r.starting, 5)
	r.forgetEarly()
	if len(r.early) != 0 {
		t.Errorf("kept %v, want nothing", r.early)
	}
}
