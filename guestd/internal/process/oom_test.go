package process

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKillsOfTheKernelAreSharedOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory.oom_control")
	count := func(content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := oomFiles
	oomFiles = []string{file + ".absent", file}
	defer func() { oomFiles = before }()
	count("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
	kills := newOOMKills()
	if kills.claim(oomKilled()) {
		t.Error("nothing was killed since")
	}
	began := oomKilled()
	count("low 0\nhigh 9\noom 7\noom_kill 5\noom_group_kill 8\n")
	for _, want := range []bool{true, true, false} {
		if kills.claim(began) != want {
			t.Errorf("not %v: two were killed", want)
		}
	}
	if kills.claim(oomKilled()) {
		t.Error("it began later")
	}
}
