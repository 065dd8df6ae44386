package main

import (
	"os"
	"os/signal"
	"syscall"
)

// deadly are the signals of which the Go runtime ends a process, and those that stop one:
// gVisor, unlike Linux, lets them stop PID 1. Root inside the sandbox can send them all. Real
// faults still end the daemon: those do not come from outside.
var deadly = []os.Signal{
	syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGFPE,
	syscall.SIGSEGV, syscall.SIGPIPE, syscall.SIGSTKFLT, syscall.SIGSYS,
	syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
}

// endings takes in the signals that ask for an end, and swallows what else would bring one.
// Swallowing is not ignoring: a command would inherit that.
func endings() <-chan os.Signal {
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGTERM)
	swallowed := make(chan os.Signal, 1)
	if os.Getpid() == 1 {
		// Runtimes end a sandbox with SIGTERM; an interrupt can only come from inside.
		signal.Notify(swallowed, append(deadly, syscall.SIGINT)...)
	} else {
		signal.Notify(ending, syscall.SIGINT)
		signal.Notify(swallowed, syscall.SIGPIPE, syscall.SIGHUP)
	}
	return ending
}
