package process

import (
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	processpb "warren.dev/guestd/gen/process"
	"warren.dev/guestd/internal/pull"
	"warren.dev/guestd/internal/reap"
)

const (
	// pipeChunk and ptyChunk bound one output event.
	pipeChunk = 32 << 10
	ptyChunk  = 16 << 10
	// killGrace is how long the tail of the output of a killed process is waited for. What
	// escaped from its process group may hold the pipes open for ever.
	killGrace = 200 * time.Millisecond
	// hangupGrace is the same for terminals: Linux hangs up a terminal whose leader has
	// ended, which ends the output, but not every kernel does.
	hangupGrace = 500 * time.Millisecond
)

var (
	pipeBuffers = pull.NewPool(pipeChunk)
	ptyBuffers  = pull.NewPool(ptyChunk)
)

// process is a command that was started, from its first event to the end of its retention.
type process struct {
	pid     uint32
	order   uint64 // set by the registry: a later start has a larger one
	tag     *string
	config  *processpb.ProcessConfig
	output  *output
	input   *input
	child   *reap.Child // nil for a command that could not be run
	fault   *cannotRun  // set for such a one
	master  *os.File    // nil without a terminal
	request string      // id of the request that started it
	sources []source

	signalOnce sync.Once
	signalled  chan struct{} // closed when we have sent a signal that ends it
	expired    chan struct{} // closed when its lifetime was over

	blame  atomic.Pointer[string] // why it, or something that it started, was ended from outside
	killed oomCount               // what the kernel had killed for memory when it began
}

func newProcess(request *processpb.StartRequest, io *stdio) *process {
	return &process{
		tag:       request.Tag,
		config:    request.GetProcess(),
		output:    newOutput(),
		input:     newInput(io.stdin, io.master),
		master:    io.master,
		sources:   io.sources,
		signalled: make(chan struct{}),
		expired:   make(chan struct{}),
	}
}

// supervise follows the child to its end and calls ended with the result.
func (p *process) supervise(kills *oomKills, ended func(*processpb.ProcessEvent_EndEvent)) {
	if p.fault != nil {
		p.closeFiles()
		p.output.publish(p.faultStream(), []byte(p.fault.reason))
		ended(endEvent(syscall.WaitStatus(p.fault.exit << 8)))
		return
	}
	drained := make(chan struct{})
	var readers sync.WaitGroup
	for _, from := range p.sources {
		readers.Go(func() { from.drain(p.output) })
	}
	go func() {
		readers.Wait()
		close(drained)
	}()
	<-p.child.Done()
	p.awaitTail(drained)
	close(p.output.cut)
	p.closeFiles()
	<-drained
	ended(p.endEvent(kills))
}

func (p *process) closeFiles() {
	for _, from := range p.sources {
		from.file.Close()
	}
	p.input.close()
}

func (p *process) faultStream() stream {
	if p.master != nil {
		return fromTerminal
	}
	return stderr
}

// awaitTail waits for the end of the output. A background child that holds a pipe delays
// it, unless the process was told to end.
func (p *process) awaitTail(drained <-chan struct{}) {
	grace := killGrace
	if p.master != nil {
		grace = hangupGrace
	} else {
		select {
		case <-drained:
			return
		case <-p.signalled:
		}
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
	}
}

func (p *process) hasEnded() bool {
	select {
	case <-p.output.ended:
		return true
	default:
		return false
	}
}

func (p *process) wasSignalled() bool {
	select {
	case <-p.signalled:
		return true
	default:
		return false
	}
}

func (p *process) kill() error { return p.end(syscall.SIGKILL) }

func (p *process) terminate() error { return p.end(syscall.SIGTERM) }

func (p *process) end(sig syscall.Signal) error {
	if p.child == nil {
		return nil
	}
	p.signalOnce.Do(func() { close(p.signalled) })
	err := p.child.SignalGroup(sig)
	if p.master != nil {
		signalSession(p.child.Pid(), sig)
	}
	if err != nil && err != syscall.ESRCH {
		return err
	}
	return nil
}

// expire ends the process when its lifetime is over.
func (p *process) expire() {
	close(p.expired)
	_ = p.kill() // the only failure left is a group that has become empty
}

// source is one of the descriptors a process writes to.
type source struct {
	file *os.File
	from stream
}

func (s source) drain(into *output) {
	buffers := pipeBuffers
	if s.from == fromTerminal {
		buffers = ptyBuffers
	}
	// An error is an end, too: EIO is how a terminal says that nobody has it open.
	_ = buffers.Each(s.file, func(bytes []byte) error {
		into.publish(s.from, bytes)
		return nil
	})
}

// endEvent adds what is known of the reason when the process, or as shells say it (128 + 9)
// a child of it, was killed, and not by us.
func (p *process) endEvent(kills *oomKills) *processpb.ProcessEvent_EndEvent {
	status := p.child.Status()
	end := endEvent(status)
	if !status.Signaled() || status.Signal() != syscall.SIGKILL {
		if status.ExitStatus() != exitKilled {
			return end
		}
	}
	reason := p.blame.Load()
	if reason == nil && !p.wasSignalled() && kills.claim(p.killed) {
		reason = &outOfMemory
	}
	if reason != nil {
		end.Status += " (" + *reason + ")"
	}
	return end
}

// endEvent words a wait status as Go's os package does; clients show it to people.
func endEvent(status syscall.WaitStatus) *processpb.ProcessEvent_EndEvent {
	end := &processpb.ProcessEvent_EndEvent{}
	if status.Signaled() {
		end.ExitCode = -1
		end.Status = "signal: " + status.Signal().String()
		if status.CoreDump() {
			end.Status += " (core dumped)"
		}
	} else {
		end.Exited = true
		end.ExitCode = int32(status.ExitStatus())
		end.Status = "exit status " + strconv.Itoa(status.ExitStatus())
	}
	if end.ExitCode != 0 {
		end.Error = &end.Status
	}
	return end
}
