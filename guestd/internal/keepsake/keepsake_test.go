package keepsake

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestWhatIsPutIsTakenOnce(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "box")
	box := New(folder)
	if box.Take() != nil {
		t.Fatal("an empty box gave something")
	}
	envs := map[string]string{"A": "1", "B": "two words\n"}
	for _, put := range []map[string]string{{"OLD": "x"}, envs} {
		if err := box.Put(put); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(folder, file))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	if got := New(folder).Take(); !maps.Equal(got, envs) {
		t.Errorf("got %v", got)
	}
	if box.Take() != nil {
		t.Error("it was given twice")
	}
	if left, _ := os.ReadDir(folder); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWhatIsNoFileOfOursGivesNothing(t *testing.T) {
	folder := t.TempDir()
	path, victim := filepath.Join(folder, file), filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte(`{"A":"1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if got := New(folder).Take(); got != nil {
		t.Errorf("a link gave %v", got)
	}
	if err := os.WriteFile(path, []byte("not json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := New(folder).Take(); got != nil {
		t.Errorf("rubbish gave %v", got)
	}
}
