package process

import (
	"context"
	"errors"
	"os"
	"time"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

var (
	errNoStdin    = errors.New("stdin not enabled or closed")
	errNoTerminal = errors.New("tty not assigned to process")
	errPtyStdin   = connect.NewError(connect.CodeFailedPrecondition,
		errors.New("cannot close stdin for PTY process - send Ctrl+D (0x04) instead"))
)

// input is the way into a process: a pipe, a terminal, or nothing.
type input struct {
	turn     chan struct{} // holds one token: writes of several callers do not mix
	pipe     *os.File      // nil when there never was one
	closed   bool          // under turn: the pipe has been given its end
	terminal *os.File
}

func newInput(pipe, terminal *os.File) *input {
	in := &input{turn: make(chan struct{}, 1), pipe: pipe, terminal: terminal}
	in.turn <- struct{}{}
	return in
}

// write hands bytes to the process. It waits while the process does not read, for as long
// as the caller does.
func (in *input) write(ctx context.Context, what *processpb.ProcessInput) error {
	select {
	case <-in.turn:
		defer func() { in.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	switch given := what.GetInput().(type) {
	case *processpb.ProcessInput_Stdin:
		if in.pipe == nil || in.closed {
			return internal(errNoStdin)
		}
		return writeWhile(ctx, in.pipe, given.Stdin)
	case *processpb.ProcessInput_Pty:
		if in.terminal == nil {
			return internal(errNoTerminal)
		}
		return writeWhile(ctx, in.terminal, given.Pty)
	}
	return invalid(errors.New("cannot send an input without content; set stdin or pty"))
}

func writeWhile(ctx context.Context, file *os.File, bytes []byte) error {
	if err := file.SetWriteDeadline(time.Time{}); err != nil {
		return internal(err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = file.SetWriteDeadline(time.Unix(1, 0))
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken // or it would cut the next caller's write short
		}
	}()
	if _, err := file.Write(bytes); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return internal(err)
	}
	return nil
}

// closeStdin gives the process its end of file. A second call changes nothing.
func (in *input) closeStdin(ctx context.Context) error {
	if in.terminal != nil {
		return errPtyStdin
	}
	select {
	case <-in.turn:
		defer func() { in.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if in.pipe == nil || in.closed {
		return nil
	}
	in.closed = true
	return in.pipe.Close()
}

// close drops the pipe of a process that has ended, which also wakes up a waiting writer.
func (in *input) close() {
	if in.pipe != nil {
		_ = in.pipe.Close()
	}
}
