package process

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	processpb "warren.dev/guestd/gen/process"
)

func ended(pid uint32, tag string) *process {
	p := &process{pid: pid, tag: &tag, output: newOutput()}
	p.output.finish(&processpb.ProcessEvent_EndEvent{Exited: true})
	return p
}

func pidSelector(pid uint32) *processpb.ProcessSelector {
	return &processpb.ProcessSelector{Selector: &processpb.ProcessSelector_Pid{Pid: pid}}
}

func TestResultsAreKeptForTheirTimeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		r.add(ended(5, "t"))
		r.retire(r.byPid[5])
		time.Sleep(retention - time.Millisecond)
		if _, err := r.find(pidSelector(5)); err != nil {
			t.Error("gone too early")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if _, err := r.find(pidSelector(5)); err == nil {
			t.Error("still there")
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.finished) != 0 {
			t.Error("still kept")
		}
	})
}

func TestEachLimitIsNamed(t *testing.T) {
	cmd := &command{name: "x"}
	for _, c := range []struct {
		err  error
		name string
	}{
		{errTooMany, "10000"},
		{cmd.failure(syscall.EAGAIN), "processes and threads (pids)"},
		{cmd.failure(syscall.ENOMEM), "memory"},
		{cmd.failure(syscall.EMFILE), "RLIMIT_NOFILE"},
		{noStdio(&os.PathError{Op: "open", Path: "/dev/ptmx", Err: syscall.ENOSPC}), "terminals (PTYs)"},
		{noStdio(syscall.EMFILE), "RLIMIT_NOFILE"},
	} {
		if connect.CodeOf(c.err) != connect.CodeResourceExhausted || !strings.Contains(c.err.Error(), c.name) {
			t.Errorf("%q does not name %q", c.err, c.name)
		}
	}
}

func TestResultsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		for pid := range uint32(maxFinished + 10) {
			p := ended(pid+1, "t")
			r.add(p)
			r.retire(p)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.finished) != maxFinished || len(r.byPid) != maxFinished {
			t.Errorf("%d kept, %d known", len(r.finished), len(r.byPid))
		}
	})
}

func TestNewProcessTakesOverThePidOfAnEndedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		old := ended(5, "t")
		r.add(old)
		r.retire(old)
		fresh := &process{pid: 5, output: newOutput()}
		r.add(fresh)
		time.Sleep(2 * retention)
		synctest.Wait()
		if found, err := r.find(pidSelector(5)); err != nil || found != fresh {
			t.Errorf("found %v, %v", found, err)
		}
	})
}

func TestOfEqualTagsTheRunningOneCounts(t *testing.T) {
	r := newRegistry()
	name := "same"
	running := &process{pid: 1, tag: &name, output: newOutput()}
	r.add(running)
	r.add(ended(2, name))
	r.add(ended(3, "other"))
	found, err := r.find(&processpb.ProcessSelector{Selector: &processpb.ProcessSelector_Tag{Tag: name}})
	if err != nil || found != running {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestPlacesAreBounded(t *testing.T) {
	r := newRegistry()
	for range maxProcesses {
		if err := r.reserve(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.reserve(); err != errTooMany {
		t.Errorf("got %v", err)
	}
	r.free()
	if err := r.reserve(); err != nil {
		t.Error(err)
	}
}

func TestKeepaliveComesAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &process{pid: 9, output: newOutput()}
		sub, _ := p.output.subscribe(0)
		began := time.Now()
		var got []string
		done := make(chan error)
		go func() {
			done <- follow(context.Background(), p, sub, nil, follower{
				interval: 10 * time.Second,
				send: func(event *processpb.ProcessEvent) error {
					got = append(got, fmt.Sprintf("%T@%v", event.GetEvent(), time.Since(began)))
					return nil
				},
			})
		}()
		time.Sleep(7 * time.Second)
		p.output.publish(stdout, []byte("x"))
		time.Sleep(11 * time.Second)
		p.output.finish(&processpb.ProcessEvent_EndEvent{})
		if err := <-done; err != nil {
			t.Error(err)
		}
		want := "[*process.ProcessEvent_Start@0s *process.ProcessEvent_Data@7s *process.ProcessEvent_Keepalive@17s *process.ProcessEvent_End@18s]"
		if fmt.Sprint(got) != want {
			t.Errorf("got %v\nwant %v", got, want)
		}
	})
}

func TestFullListenerHoldsThePublisherUntilItLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutput()
		sub, _ := o.subscribe(0)
		published := 0
		go func() {
			for range queuedEvents + 5 {
				o.publish(stdout, []byte("x"))
				published++
			}
		}()
		synctest.Wait()
		if published != queuedEvents {
			t.Errorf("%d events went by, want %d", published, queuedEvents)
		}
		o.unsubscribe(sub)
		synctest.Wait()
		if published != queuedEvents+5 {
			t.Errorf("%d events went by after it left", published)
		}
	})
}

func FuzzKeepaliveInterval(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		got := keepaliveInterval(http.Header{"Keepalive-Ping-Interval": {text}})
		if got < time.Second || got > maxKeepalive {
			t.Errorf("%q gives %v", text, got)
		}
	})
}

func FuzzReplayWanted(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		if got := replayWanted(http.Header{ReplayHeader: {text}}); got < 0 || got > maxReplayBytes {
			t.Errorf("%q gives %d", text, got)
		}
	})
}

func FuzzSessionOf(f *testing.F) {
	f.Fuzz(func(t *testing.T, stat []byte) {
		if session, alive := sessionOf(stat); alive && session <= 0 {
			t.Errorf("%q gives %d", stat, session)
		}
	})
}

// FuzzReplay compares the ring with a plain record of everything.
func FuzzReplay(f *testing.F) {
	f.Fuzz(func(t *testing.T, seed uint64, pieces, largest int) {
		random := rand.New(rand.NewPCG(seed, 0))
		var ring replay
		var all []byte
		for range max(pieces, 0) % 4000 {
			chunk := make([]byte, 1+random.IntN(max(largest, 0)%40000+1))
			for i := range chunk {
				chunk[i] = byte(random.Uint32())
			}
			ring.add(stream(random.IntN(2)), append([]byte(nil), chunk...))
			all = append(all, chunk...)
		}
		limit := random.IntN(maxReplayBytes)
		var tail []byte
		for _, event := range ring.tail(limit) {
			tail = append(append(tail, event.GetData().GetStdout()...), event.GetData().GetStderr()...)
		}
		if string(tail) != string(all[len(all)-len(tail):]) {
			t.Error("the tail is not the end of the output")
		}
		if few := len(ring.pieces) < replayPieces/2; few && len(tail) < min(limit, replayBytes, len(all)) {
			t.Errorf("only %d bytes of %d", len(tail), len(all))
		}
		if len(ring.pieces) > replayPieces || ring.size >= replayBytes+40001 {
			t.Errorf("%d pieces, %d bytes", len(ring.pieces), ring.size)
		}
	})
}
