package build

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

const (
	// settleRounds and settlePause bound the wait for what was killed to be gone.
	settleRounds = 500
	settlePause  = 10 * time.Millisecond
)

// endOthers may only run as PID 1 of a sandbox: it kills all that it can see.
func endOthers() error {
	if os.Getpid() != 1 {
		return errors.New("cannot end all processes: this is not PID 1 of a sandbox")
	}
	for range settleRounds {
		others, err := countOthers()
		if err != nil || others == 0 {
			return err
		}
		if err := syscall.Kill(-1, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("cannot end all processes: %w", err)
		}
		time.Sleep(settlePause)
	}
	return errors.New("cannot end all processes: some do not go")
}

func countOthers() (int, error) {
	names, err := readNames("/proc")
	if err != nil {
		return 0, fmt.Errorf("cannot list processes: %w", err)
	}
	count := 0
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid != 1 {
			count++
		}
	}
	return count, nil
}

func readNames(folder string) ([]string, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}
