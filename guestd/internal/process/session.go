package process

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// killPasses bounds the hunt for members of a session that fork while they are hunted.
const killPasses = 8

// signalSession reaches the jobs of an interactive shell: each is a process group of its
// own, and those in the background outlive the hang-up of their terminal.
func signalSession(session int, sig syscall.Signal) {
	passes := 1
	if sig == syscall.SIGKILL {
		passes = killPasses
	}
	for range passes {
		members := sessionMembers(session)
		if len(members) == 0 {
			return
		}
		for _, pid := range members {
			_ = syscall.Kill(pid, sig) // it may be gone by now
		}
	}
}

func sessionMembers(session int) []int {
	folder, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer folder.Close()
	names, _ := folder.Readdirnames(-1)
	var members []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		if of, alive := sessionOf(stat); alive && of == session {
			members = append(members, pid)
		}
	}
	return members
}

// sessionOf reads /proc/PID/stat. The name of the command may hold anything, so the fields
// are counted from its last parenthesis: state, parent, group, session.
func sessionOf(stat []byte) (session int, alive bool) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, false
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 4 || bytes.ContainsAny(fields[0], "ZXx") {
		return 0, false
	}
	session, err := strconv.Atoi(string(fields[3]))
	return session, err == nil && session > 0
}
