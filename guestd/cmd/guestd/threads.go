package main

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// spareThreads is how many threads are kept ready. The Go runtime ends the whole process
// when it cannot make one, and a fork bomb inside the sandbox can see to that.
const spareThreads = 16

// keepThreads makes threads, all at once so that none serves twice, and lets them idle:
// the runtime never ends a thread that it can use again.
func keepThreads(count int) {
	var made, ended sync.WaitGroup
	made.Add(count)
	all := make(chan struct{})
	for range count {
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			<-all
		})
	}
	made.Wait()
	close(all)
	ended.Wait()
}

// limitProcesses sets what one user of the sandbox may run at once. It has to be set on the
// daemon, from which every command inherits it: changing it on a command of another user
// takes a capability that sandboxes do not have.
func limitProcesses(most uint64) error {
	limit := &unix.Rlimit{Cur: most, Max: most}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, limit); err != nil {
		return fmt.Errorf("cannot limit processes to %d: %w; choose another -max-processes", most, err)
	}
	return nil
}
