package pressure

import (
	"bytes"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	procDir = "/proc"
	// direntBytes is read of the folder at once; 64 KiB hold the names of some 2,500 processes.
	direntBytes = 64 << 10
	// statBytes is more than the kernel writes into /proc/PID/stat.
	statBytes = 1 << 10
	// maxGenerations bounds the walk up to the daemon: a table read while it changes may hold a loop.
	maxGenerations = 256
)

// row is one process as /proc/PID/stat has it. rss is in bytes, tasks counts its threads.
type row struct {
	pid, parent, group, session, tasks int
	rss                                uint64
}

// table is all processes of the sandbox. Its memory is used again for each reading: it is
// read when there is none left.
type table struct {
	rows    []row
	dirents [direntBytes]byte
	stat    [statBytes]byte
}

// read takes in every process but the daemon itself, sorted by pid. What ends meanwhile is left out.
func (t *table) read(self int) error {
	t.rows = t.rows[:0]
	folder, err := unix.Open(procDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	for {
		n, err := unix.Getdents(folder, t.dirents[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		t.take(folder, t.dirents[:n], self)
	}
	slices.SortFunc(t.rows, func(a, b row) int { return a.pid - b.pid })
	return nil
}

// take reads the processes that a buffer of directory entries names.
func (t *table) take(folder int, entries []byte, self int) {
	var names [1]string
	for len(entries) > 0 {
		consumed, _, found := unix.ParseDirent(entries, 1, names[:0])
		entries = entries[consumed:]
		if len(found) == 0 {
			continue
		}
		if pid, err := strconv.Atoi(found[0]); err == nil && pid != self {
			if one, alive := t.one(folder, found[0]); alive {
				t.rows = append(t.rows, one)
			}
		}
	}
}

func (t *table) one(folder int, name string) (row, bool) {
	fd, err := unix.Openat(folder, name+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return row{}, false
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, t.stat[:])
	if err != nil {
		return row{}, false
	}
	return parseStat(t.stat[:n])
}

// Fields of /proc/PID/stat, counted from the one after the command's last parenthesis: the
// name may hold anything.
const (
	fieldState   = 0
	fieldParent  = 1
	fieldGroup   = 2
	fieldSession = 3
	fieldTasks   = 17
	fieldPages   = 21
)

// parseStat says false for what is no process any more, and for what cannot be read.
func parseStat(stat []byte) (row, bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 1 || end < open {
		return row{}, false
	}
	pid, ok := number(bytes.TrimSpace(stat[:open]))
	if !ok {
		return row{}, false
	}
	found := row{pid: pid}
	pages := 0
	rest := stat[end+1:]
	for field := 0; field <= fieldPages; field++ {
		rest = bytes.TrimLeft(rest, " ")
		width := bytes.IndexByte(rest, ' ')
		if width < 1 {
			return row{}, false
		}
		word := rest[:width]
		rest = rest[width:]
		switch field {
		case fieldState:
			ok = word[0] != 'Z' && word[0] != 'X'
		case fieldParent:
			found.parent, ok = number(word)
		case fieldGroup:
			found.group, ok = number(word)
		case fieldSession:
			found.session, ok = number(word)
		case fieldTasks:
			found.tasks, ok = number(word)
		case fieldPages:
			pages, ok = number(word)
		}
		if !ok {
			return row{}, false
		}
	}
	found.rss = uint64(pages) * uint64(unix.Getpagesize())
	return found, true
}

// number reads what the kernel prints: digits alone.
func number(word []byte) (int, bool) {
	if len(word) == 0 || len(word) > 15 {
		return 0, false
	}
	value := 0
	for _, digit := range word {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		value = value*10 + int(digit-'0')
	}
	return value, true
}

func (t *table) find(pid int) (row, bool) {
	at, found := slices.BinarySearchFunc(t.rows, pid, func(r row, pid int) int { return r.pid - pid })
	if !found {
		return row{}, false
	}
	return t.rows[at], true
}

// tasks is the number of processes and threads, the daemon's own left out.
func (t *table) tasks() int {
	sum := 0
	for _, one := range t.rows {
		sum += one.tasks
	}
	return sum
}

// lineage is a process and its ancestors up to the one that the daemon started or took over.
func (t *table) lineage(one row, self int) []row {
	line := []row{one}
	for range maxGenerations {
		parent, found := t.find(one.parent)
		if one.parent == self || !found {
			break
		}
		one = parent
		line = append(line, one)
	}
	return line
}

// family names what belongs together: everything that came out of one command carries its
// process group, or on a terminal its session, also when the processes between have ended.
func (t *table) family(one row, self, ownSession int) int {
	line := t.lineage(one, self)
	top := line[len(line)-1]
	if top.session != ownSession && top.session != 0 {
		return top.session
	}
	return top.group
}
