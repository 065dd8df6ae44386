package main

import (
	"bufio"
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

// whenQuiet passes requests on, and calls act each time that none has come for a while.
func whenQuiet(next http.Handler, act func()) http.Handler {
	var underWay atomic.Int64
	quiet := time.AfterFunc(quietTime, func() {
		if underWay.Load() == 0 {
			act()
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		if start, length, ok := ownImage(lines.Text()); ok {
			// madvise, as unix.Madvise only takes memory of the Go heap's kind: a slice.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, length, unix.MADV_DONTNEED)
		}
	}
}

// ownImage reads a line of /proc/self/maps and says whether it is a read-only piece of a
// file. Writable pieces are left alone: dropping those would bring old values back.
func ownImage(line string) (start, length uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || !strings.HasPrefix(fields[5], "/") || len(fields[1]) != 4 || fields[1][1] != '-' {
		return 0, 0, false
	}
	from, to, found := strings.Cut(fields[0], "-")
	begin, beginErr := strconv.ParseUint(from, 16, 64)
	end, endErr := strconv.ParseUint(to, 16, 64)
	if !found || beginErr != nil || endErr != nil || end <= begin {
		return 0, 0, false
	}
	return uintptr(begin), uintptr(end - begin), true
}
