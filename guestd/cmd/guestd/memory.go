package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// quietTime without a request makes a sandbox idle.
const quietTime = 3 * time.Second

// polled are the routes that the platform asks every few seconds, also of an idle sandbox.
var polled = map[string]bool{"/health": true, "/metrics": true, "/warren/logs": true}

// whenQuiet passes requests on, and calls act each time that none has come for a while.
func whenQuiet(next http.Handler, act func()) http.Handler {
	var underWay atomic.Int64
	quiet := time.AfterFunc(quietTime, func() {
		if underWay.Load() == 0 {
			act()
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if polled[r.URL.Path] {
			next.ServeHTTP(w, r)
			return
		}
		underWay.Add(1)
		defer func() {
			underWay.Add(-1)
			quiet.Reset(quietTime)
		}()
		next.ServeHTTP(w, r)
	})
}

// shrink gives back what an idle daemon does not need: garbage, and the pages of our own
// binary that were run through. Those come back from the page cache, which all sandboxes
// share, when they are wanted again.
func shrink() {
	debug.FreeOSMemory()
	mappings, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer mappings.Close()
	for _, piece := range droppable(mappings) {
		// The raw call: unix.Madvise takes a slice, which would have to be made of a bare address.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, piece.start, piece.length, unix.MADV_DONTNEED)
	}
}

// mapping is a range of our address space.
type mapping struct{ start, length uintptr }

// droppable reads /proc/self/smaps and returns the read-only pieces of files of which no page
// was ever written to. A page that was, by a relocation before it became read-only, would
// come back with its old content.
func droppable(smaps io.Reader) []mapping {
	var found []mapping
	var piece mapping
	var candidate bool
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 2 && fields[0] == "Anonymous:":
			if candidate && fields[1] == "0" {
				found = append(found, piece)
			}
			candidate = false
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			piece, candidate = readOnlyFile(fields)
		}
	}
	return found
}

// readOnlyFile reads the line that begins a mapping.
func readOnlyFile(fields []string) (mapping, bool) {
	if len(fields) < 6 || !strings.HasPrefix(fields[5], "/") || len(fields[1]) != 4 || fields[1][1] != '-' {
		return mapping{}, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	start, startErr := strconv.ParseUint(from, 16, 64)
	end, endErr := strconv.ParseUint(to, 16, 64)
	if startErr != nil || endErr != nil || end <= start {
		return mapping{}, false
	}
	return mapping{uintptr(start), uintptr(end - start)}, true
}
