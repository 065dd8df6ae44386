package pressure

import (
	"slices"
	"testing"
	"time"

	"warren.dev/guestd/internal/journal"
)

type commands []int

func (c commands) Runs(pid int) bool   { return slices.Contains(c, pid) }
func (c commands) Blame([]int, string) {}

func guarding(running commands, rows ...row) *Guard {
	g := New(running, journal.New(time.Now))
	g.self, g.session, g.table.rows = 1, 0, rows
	return g
}

func pids(rows []row) []int {
	var found []int
	for _, one := range rows {
		found = append(found, one.pid)
	}
	slices.Sort(found)
	return found
}

func TestTheLargestProcessesAreEndedForMemory(t *testing.T) {
	const mib = 1 << 20
	g := guarding(commands{10, 20},
		row{pid: 10, parent: 1, group: 10, tasks: 1, rss: 2 * mib},
		row{pid: 11, parent: 10, group: 10, tasks: 1, rss: 300 * mib},
		row{pid: 12, parent: 10, group: 10, tasks: 1, rss: 200 * mib},
		row{pid: 20, parent: 1, group: 20, tasks: 1, rss: 400 * mib},
		row{pid: 30, parent: 1, group: 30, tasks: 1},
	)
	for _, c := range []struct {
		need  uint64
		round int
		want  []int
	}{
		{1, 0, []int{20}},
		{0, 0, []int{20}},
		{400 * mib, 0, []int{20}},
		{401 * mib, 0, []int{11, 20}},
		{1 << 40, 0, []int{10, 11, 12, 20}},
		{1, familyRound, []int{10, 11, 12}},
		{1, allRound, []int{10, 11, 12, 20, 30}},
	} {
		if got := pids(g.forMemory(c.need, c.round)); !slices.Equal(got, c.want) {
			t.Errorf("%d bytes in round %d: %v, not %v", c.need, c.round, got, c.want)
		}
	}
}

func TestWhatACommandStartedEndsWithIt(t *testing.T) {
	g := guarding(commands{10, 20},
		row{pid: 10, parent: 1, group: 10, tasks: 1, rss: 1},
		row{pid: 20, parent: 1, group: 20, tasks: 1, rss: 9},
		row{pid: 21, parent: 20, group: 20, tasks: 1, rss: 2},
		row{pid: 22, parent: 1, group: 20, tasks: 1}, // its parent has ended
	)
	if got := pids(g.forMemory(5, 0)); !slices.Equal(got, []int{20, 21, 22}) {
		t.Errorf("%v", got)
	}
}

func TestABombIsTheFamilyWithHalfOfAllProcesses(t *testing.T) {
	server := []row{{pid: 10, parent: 1, group: 10, tasks: 20}}
	bomb := []row{{pid: 20, parent: 1, group: 20, tasks: 1}}
	for pid := 100; pid < 150; pid++ {
		bomb = append(bomb, row{pid: pid, parent: 1, group: 20, tasks: 1}) // their parents have ended
	}
	g := guarding(commands{10}, append(server, bomb...)...)
	if got := g.bomb(g.table.tasks(), 10); !slices.Equal(pids(got), pids(bomb)) {
		t.Errorf("%v", pids(got))
	}
}

func TestJobsOfATerminalAreOneFamily(t *testing.T) {
	rows := []row{{pid: 10, parent: 1, group: 10, session: 10, tasks: 1}}
	for pid := 20; pid < 40; pid++ {
		rows = append(rows, row{pid: pid, parent: 10, group: pid, session: 10, tasks: 1})
	}
	g := guarding(commands{10}, rows...)
	if got := g.bomb(g.table.tasks(), 10); len(got) != len(rows) {
		t.Errorf("%v", pids(got))
	}
}

func TestWhatScattersIsEndedTogether(t *testing.T) {
	rows := []row{{pid: 10, parent: 1, group: 10, tasks: 1}}
	for pid := 20; pid < 60; pid++ {
		rows = append(rows, row{pid: pid, parent: 1, group: pid, session: pid, tasks: 1})
	}
	g := guarding(commands{10}, rows...)
	if got := pids(g.bomb(g.table.tasks(), 10)); len(got) != 40 || slices.Contains(got, 10) {
		t.Errorf("%v", got)
	}
}

func TestManyCommandsAreNoBomb(t *testing.T) {
	var rows []row
	var running commands
	for pid := 20; pid < 60; pid++ {
		rows = append(rows, row{pid: pid, parent: 1, group: pid, tasks: 1})
		running = append(running, pid)
	}
	g := guarding(running, rows...)
	if got := g.bomb(g.table.tasks(), 10); got != nil {
		t.Errorf("%v", pids(got))
	}
}

func TestFewProcessesAreNoBomb(t *testing.T) {
	g := guarding(commands{10}, row{pid: 10, parent: 1, group: 10, tasks: 1})
	if got := g.bomb(1, 2); got != nil { // the bomb is dying, and still counted
		t.Errorf("%v", pids(got))
	}
}

func TestABombIsHuntedUntilNothingIsLeft(t *testing.T) {
	bomb := []row{{pid: 20, parent: 1, group: 20, tasks: 1}}
	g := guarding(commands{20}, row{pid: 30, parent: 1, group: 30, tasks: 1}, row{pid: 40, parent: 1, group: 20, tasks: 1})
	if got := pids(g.survivors(bomb)); !slices.Equal(got, []int{40}) {
		t.Errorf("%v", got)
	}
}

func TestNothingIsEndedOutsideOfASandbox(t *testing.T) {
	g := New(commands{}, journal.New(time.Now)) // not as PID 1: the tests' machine would lose its processes
	if ended := g.Free(1<<40, allRound); ended != nil || g.Relieve() {
		t.Errorf("%v", ended)
	}
}
