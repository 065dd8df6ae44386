package pty

import (
	"testing"

	"golang.org/x/sys/unix"
)

func open8024(t *testing.T, size Size) (get func() unix.Winsize, resize func(Size) error) {
	t.Helper()
	master, terminal, err := Open(size, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); unix.Close(terminal) })
	get = func() unix.Winsize {
		now, err := unix.IoctlGetWinsize(terminal, unix.TIOCGWINSZ)
		if err != nil {
			t.Fatal(err)
		}
		return *now
	}
	return get, func(size Size) error { return Resize(master, size) }
}

func TestSizeReachesTheTerminal(t *testing.T) {
	get, resize := open8024(t, Size{Cols: 100, Rows: 30})
	if now := get(); now.Col != 100 || now.Row != 30 {
		t.Errorf("got %+v", now)
	}
	if err := resize(Size{Cols: 7, Rows: 8}); err != nil {
		t.Fatal(err)
	}
	if now := get(); now.Col != 7 || now.Row != 8 {
		t.Errorf("got %+v", now)
	}
}

func TestMissingSizeIsTheUsualOne(t *testing.T) {
	get, _ := open8024(t, Size{})
	if now := get(); now.Col != 80 || now.Row != 24 {
		t.Errorf("got %+v", now)
	}
}

func TestSizeThatDoesNotFitIsRefused(t *testing.T) {
	if _, _, err := Open(Size{Cols: 1 << 16, Rows: 1}, 0); err != ErrSize {
		t.Errorf("got %v", err)
	}
	_, resize := open8024(t, Size{})
	if err := resize(Size{Cols: 1, Rows: 1 << 20}); err != ErrSize {
		t.Errorf("got %v", err)
	}
}

func TestMasterCanBeWoken(t *testing.T) {
	master, terminal, err := Open(Size{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(terminal)
	ended := make(chan struct{})
	go func() {
		_, _ = master.Read(make([]byte, 1))
		close(ended)
	}()
	master.Close()
	<-ended
}
