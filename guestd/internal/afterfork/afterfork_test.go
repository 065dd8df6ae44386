package afterfork

import (
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren.dev/guestd/internal/journal"
	"warren.dev/guestd/internal/reap"
)

func notice(t *testing.T) *Notice {
	reaper := reap.New()
	t.Cleanup(reaper.Close)
	return &Notice{
		Hooks: t.TempDir(), Run: filepath.Join(t.TempDir(), "run"),
		Reaper: reaper, Journal: journal.New(time.Now),
		Others: func() []int { return nil },
	}
}

func hook(t *testing.T, n *Notice, name, script string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.Hooks, name), []byte("#!/bin/sh\n"+script+"\n"), mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestHooksRunInOrderAndKnowTheGeneration(t *testing.T) {
	n, out := notice(t), filepath.Join(t.TempDir(), "out")
	hook(t, n, "20-second", "echo second >> "+out, 0o755)
	hook(t, n, "10-first", "echo first $WARREN_FORK >> "+out, 0o755)
	hook(t, n, "30-not-executable", "echo third >> "+out, 0o644)
	if err := n.Tell(); err != nil {
		t.Fatal(err)
	}
	generation := strings.TrimSpace(read(t, filepath.Join(n.Run, generated)))
	if got, want := read(t, out), "first "+generation+"\nsecond\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := n.Tell(); err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(read(t, filepath.Join(n.Run, generated))) == generation {
		t.Error("two copies have one generation")
	}
	if left, _ := os.ReadDir(n.Run); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAHookThatFailsOrTalksHoldsUpNobody(t *testing.T) {
	n, out := notice(t), filepath.Join(t.TempDir(), "out")
	hook(t, n, "10-fails", "echo sorry; exit 3", 0o755)
	hook(t, n, "20-talks", "head -c 1000000 /dev/zero | tr '\\0' x", 0o755)
	hook(t, n, "30-runs", "echo ran > "+out, 0o755)
	if err := n.Tell(); err != nil {
		t.Fatal(err)
	}
	if read(t, out) != "ran\n" {
		t.Error("the last hook did not run")
	}
	var said []string
	for _, entry := range n.Journal.After(0, journal.MaxEntries).Entries {
		if len(entry.Fields["output"]) > maxOutput {
			t.Errorf("%d bytes of output were kept", len(entry.Fields["output"]))
		}
		said = append(said, entry.Message)
	}
	if len(said) != 3 || !strings.HasPrefix(said[0], "hook failed") || said[2] != "hook ran" {
		t.Errorf("journal: %q", said)
	}
}

func TestAHookThatHangsIsEnded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the whole deadline")
	}
	n := notice(t)
	hook(t, n, "10-hangs", "sleep 600", 0o755)
	hook(t, n, "20-late", "true", 0o755)
	began := time.Now()
	if err := n.Tell(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < deadline || took > 10*deadline {
		t.Errorf("it took %s", took)
	}
}

func TestProcessesAreSignalled(t *testing.T) {
	n := notice(t)
	n.Others = func() []int { return []int{os.Getpid(), 1 << 30} }
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, Signal)
	defer signal.Stop(heard)
	if err := n.Tell(); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-heard:
		if got != syscall.SIGURG {
			t.Errorf("got %v", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("no signal came")
	}
}
