package pressure

import (
	"os"
	"os/exec"
	"testing"
)

func TestStatIsReadWhateverTheCommandIsCalled(t *testing.T) {
	const fields = " S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 100 5000 12 18446744073709551615 1 2 3"
	for text, want := range map[string]row{
		"12 (sh)" + fields:          {pid: 12, parent: 7, group: 8, session: 9, tasks: 3, rss: 12 * 4096},
		"12 (a) S 1 (b c)" + fields: {pid: 12, parent: 7, group: 8, session: 9, tasks: 3, rss: 12 * 4096},
	} {
		got, ok := parseStat([]byte(text))
		want.rss = 12 * uint64(os.Getpagesize())
		if !ok || got != want {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{
		"", "12", "12 (sh)", "12 (sh) S 7", "x (sh)" + fields, ") (", "12 (sh) Z" + fields[2:], "12 (sh) S -7" + fields[4:],
	} {
		if got, ok := parseStat([]byte(text)); ok {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Fuzz(func(t *testing.T, stat []byte) {
		if got, ok := parseStat(stat); ok && (got.pid < 0 || got.tasks < 0) {
			t.Errorf("%q gives %+v", stat, got)
		}
	})
}

func TestTheTableShowsAChildAndItsParent(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	var seen table
	for range 2 { // the memory is used again
		if err := seen.read(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		found, ok := seen.find(child.Process.Pid)
		if !ok || found.parent != os.Getpid() || found.tasks != 1 {
			t.Errorf("%+v, %v", found, ok)
		}
		if _, ok := seen.find(os.Getpid()); ok {
			t.Error("the daemon is among those that may be ended")
		}
	}
}
