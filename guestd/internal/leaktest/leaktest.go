// Package leaktest fails a package's tests when goroutines of this module outlive them.
package leaktest

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	settleTime = 5 * time.Second // connections and timers take a moment to wind up
	pollEvery  = 10 * time.Millisecond
	module     = "warren.dev/guestd/internal/"
)

// Main runs the tests of a package, winds up what they shared, and then looks for what
// they left behind.
func Main(m *testing.M, windUp ...func()) {
	code := m.Run()
	for _, end := range windUp {
		end()
	}
	if code == 0 {
		if left := settle(); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "%d goroutines outlive the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

func settle() []string {
	deadline := time.Now().Add(settleTime)
	for {
		left := ours()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(pollEvery)
	}
}

func ours() []string {
	buffer := make([]byte, 4<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var left []string
	for _, stack := range strings.Split(string(buffer), "\n\n") {
		if strings.Contains(stack, module) && !strings.Contains(stack, module+"leaktest.") {
			left = append(left, stack)
		}
	}
	return left
}
