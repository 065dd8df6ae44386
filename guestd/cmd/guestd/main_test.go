package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestShrinkComesOnceItIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acted := 0
		hold := make(chan struct{})
		handler := whenQuiet(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }), func() { acted++ })
		served := make(chan struct{})
		go func() {
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
			close(served)
		}()
		time.Sleep(2 * quietTime)
		synctest.Wait()
		if acted != 0 {
			t.Error("while a request is under way")
		}
		close(hold)
		<-served
		time.Sleep(quietTime + time.Millisecond)
		synctest.Wait()
		if acted != 1 {
			t.Errorf("%d times after the request", acted)
		}
	})
}

func TestOnlyUntouchedReadOnlyPiecesOfFilesAreDropped(t *testing.T) {
	const image = "00400000-0081d000 r-xp 00000000 fe:00 1027 /guestd/guestd\n"
	for smaps, want := range map[string]int{
		image + "Size: 4 kB\nAnonymous:             0 kB\n":  1,
		image + "Anonymous:             4 kB\n":              0,
		image:                                                0,
		image + image + "Anonymous: 0 kB\nAnonymous: 0 kB\n": 1,
		"00c9c000-00cfd000 rw-p 0089c000 fe:00 1027 /guestd/guestd\nAnonymous: 0 kB\n":             0,
		"c000000000-c000400000 r--p 00000000 00:00 0\nAnonymous: 0 kB\n":                           0,
		"7ffd-7fff r-xp 00000000 00:00 0                          [vdso]\nAnonymous:       0 kB\n": 0,
	} {
		if got := droppable(strings.NewReader(smaps)); len(got) != want {
			t.Errorf("%q: %v", smaps, got)
		}
	}
}

func TestShrinkDoesNoHarm(t *testing.T) { shrink() }

func TestSpareThreadsAreMadeAndLetGo(t *testing.T) { keepThreads(spareThreads) }

func FuzzDroppable(f *testing.F) {
	f.Fuzz(func(t *testing.T, smaps string) {
		for _, piece := range droppable(strings.NewReader(smaps)) {
			if piece.length == 0 || piece.start+piece.length < piece.start {
				t.Errorf("%q gives %+v", smaps, piece)
			}
		}
	})
}
