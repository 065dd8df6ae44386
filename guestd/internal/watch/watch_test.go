package watch

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"warren.dev/guestd/gen/filesystem"
	"warren.dev/guestd/gen/filesystem/filesystemconnect"
	"warren.dev/guestd/internal/journal"
)

// handler gives the service the verbs that it does not have.
type handler struct {
	filesystemconnect.UnimplementedFilesystemHandler
	*Service
}

func (h handler) WatchDir(ctx context.Context, req *connect.Request[filesystem.WatchDirRequest], stream *connect.ServerStream[filesystem.WatchDirResponse]) error {
	return h.Service.WatchDir(ctx, req, stream)
}

func (h handler) CreateWatcher(ctx context.Context, req *connect.Request[filesystem.CreateWatcherRequest]) (*connect.Response[filesystem.CreateWatcherResponse], error) {
	return h.Service.CreateWatcher(ctx, req)
}

func (h handler) GetWatcherEvents(ctx context.Context, req *connect.Request[filesystem.GetWatcherEventsRequest]) (*connect.Response[filesystem.GetWatcherEventsResponse], error) {
	return h.Service.GetWatcherEvents(ctx, req)
}

func (h handler) RemoveWatcher(ctx context.Context, req *connect.Request[filesystem.RemoveWatcherRequest]) (*connect.Response[filesystem.RemoveWatcherResponse], error) {
	return h.Service.RemoveWatcher(ctx, req)
}

type bench struct {
	testing.TB
	service *Service
	rpc     filesystemconnect.FilesystemClient
	root    string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	before := runtime.NumGoroutine()
	describe := func(path string) *filesystem.EntryInfo {
		if info, err := os.Lstat(path); err == nil {
			return &filesystem.EntryInfo{Path: path, Size: info.Size()}
		}
		return nil
	}
	service := New(func(_ http.Header, path string) (string, error) { return path, nil }, describe, journal.New(time.Now))
	mux := http.NewServeMux()
	mux.Handle(filesystemconnect.NewFilesystemHandler(handler{Service: service}))
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		service.Close()
		server.CloseClientConnections()
		server.Close()
		eventually(t, func() bool { return runtime.NumGoroutine() <= before })
		if service.active != 0 || service.hub != nil || len(service.polled) != 0 {
			t.Errorf("left behind: %d watchers, hub %v", service.active, service.hub)
		}
	})
	return &bench{TB: t, service: service, root: t.TempDir(), rpc: filesystemconnect.NewFilesystemClient(server.Client(), server.URL)}
}

func eventually(t testing.TB, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to be so within 5 s")
		}
	}
}

func (b *bench) do(errs ...error) {
	b.Helper()
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bench) write(name, content string) {
	b.Helper()
	b.do(os.WriteFile(filepath.Join(b.root, name), []byte(content), 0o644))
}

// upload does what the upload of a file does.
func (b *bench) upload(name, content string) {
	b.Helper()
	final := filepath.Join(b.root, name)
	_, err := os.Stat(final)
	temp := filepath.Join(filepath.Dir(final), HiddenName(err == nil, content == ""))
	b.do(os.WriteFile(temp, []byte(content), 0o600), os.Chmod(temp, 0o644), os.Rename(temp, final))
}

func (b *bench) watch(opts *filesystem.CreateWatcherRequest) string {
	b.Helper()
	if opts.Path == "" {
		opts.Path = b.root
	}
	got, err := b.rpc.CreateWatcher(context.Background(), connect.NewRequest(opts))
	if err != nil {
		b.Fatal(err)
	}
	return got.Msg.WatcherId
}

func (b *bench) take(id string) ([]*filesystem.FilesystemEvent, error) {
	got, err := b.rpc.GetWatcherEvents(context.Background(), connect.NewRequest(&filesystem.GetWatcherEventsRequest{WatcherId: id}))
	if err != nil {
		return nil, err
	}
	return got.Msg.Events, nil
}

// until takes events up to the creation of the marker, as "type name" texts.
func (b *bench) until(id string) []string {
	b.Helper()
	marker := fmt.Sprintf("marker-%d", time.Now().UnixNano())
	b.do(os.Mkdir(filepath.Join(b.root, marker), 0o755))
	var all []string
	eventually(b, func() bool {
		events, err := b.take(id)
		if err != nil {
			b.Fatal(err)
		}
		for _, event := range events {
			if event.Name == marker {
				return true
			}
			if !strings.HasPrefix(event.Name, "marker-") {
				all = append(all, text(event))
			}
		}
		return false
	})
	return all
}

func text(event *filesystem.FilesystemEvent) string {
	return strings.ToLower(strings.TrimPrefix(event.Type.String(), "EVENT_TYPE_")) + " " + event.Name
}

func (b *bench) want(id string, want ...string) {
	b.Helper()
	if got := b.until(id); strings.Join(got, ", ") != strings.Join(want, ", ") {
		b.Errorf("events %q, want %q", got, want)
	}
}

func TestEventsOfOneDirectory(t *testing.T) {
	b := newBench(t)
	b.write("old", "x")
	b.do(os.Mkdir(filepath.Join(b.root, "sub"), 0o755))
	id := b.watch(&filesystem.CreateWatcherRequest{})
	b.write("new", "x")
	b.want(id, "create new", "write new")
	b.do(os.Chmod(filepath.Join(b.root, "old"), 0o600))
	b.want(id, "chmod old")
	b.do(os.Rename(filepath.Join(b.root, "old"), filepath.Join(b.root, "renamed")))
	b.want(id, "rename old", "create renamed")
	b.do(os.Remove(filepath.Join(b.root, "renamed")))
	b.want(id, "remove renamed")
	b.write("sub/inner", "not recursive")
	b.want(id)
	b.do(os.Chmod(b.root, 0o700))
	b.want(id, "chmod .")
}

func TestUploadsLookLikeWritesInPlace(t *testing.T) {
	b := newBench(t)
	id := b.watch(&filesystem.CreateWatcherRequest{})
	b.upload("f", "data")
	b.want(id, "create f", "chmod f", "write f")
	b.upload("f", "more")
	b.want(id, "write f", "chmod f", "write f")
	b.upload("empty", "")
	b.want(id, "create empty", "chmod empty")
	b.do(os.WriteFile(filepath.Join(b.root, HiddenName(false, false)), []byte("x"), 0o600))
	b.want(id)
}

func TestRecursiveWatchFollowsTheTree(t *testing.T) {
	b := newBench(t)
	path := func(name string) string { return filepath.Join(b.root, name) }
	b.do(os.MkdirAll(path("a/b"), 0o755))
	id := b.watch(&filesystem.CreateWatcherRequest{Recursive: true})
	b.write("a/b/f", "x")
	b.want(id, "create a/b/f", "write a/b/f")
	b.do(os.Mkdir(path("n"), 0o755))
	b.want(id, "create n")
	b.upload("n/f", "x")
	b.want(id, "create n/f", "chmod n/f", "write n/f")
	b.do(os.Rename(path("a"), path("z")))
	b.want(id, "rename a", "create z")
	b.write("z/b/f", "xy")
	b.want(id, "write z/b/f")
	b.do(os.RemoveAll(path("z")))
	b.want(id, "remove z/b/f", "remove z/b", "remove z")
	outside := t.TempDir()
	b.do(os.Rename(path("n"), outside+"/n"), os.Mkdir(path("n"), 0o755))
	b.want(id, "rename n", "create n")
	time.Sleep(2 * moveWait) // the kernel has no event for "it has left for good"
	b.do(os.WriteFile(outside+"/n/unseen", nil, 0o644))
	b.write("n/seen", "")
	b.want(id, "create n/seen")
	b.do(os.Symlink(outside, path("link")), os.WriteFile(outside+"/behind-link", nil, 0o644))
	b.want(id, "create link")
}

func TestDirectoriesMadeAtOnceAreSeenWhole(t *testing.T) {
	b := newBench(t)
	id := b.watch(&filesystem.CreateWatcherRequest{Recursive: true})
	for round := range 20 {
		dir := fmt.Sprintf("r%d", round)
		b.do(os.MkdirAll(filepath.Join(b.root, dir, "x/y"), 0o755))
		b.upload(dir+"/x/y/f", "data")
		got := b.until(id)
		count := map[string]int{}
		for _, event := range got {
			count[event]++
		}
		for _, want := range []string{"create " + dir, "create " + dir + "/x", "create " + dir + "/x/y", "create " + dir + "/x/y/f"} {
			if count[want] != 1 {
				t.Fatalf("%d times %q in %q", count[want], want, got)
			}
		}
		if count["write "+dir+"/x/y/f"] == 0 {
			t.Fatalf("no write in %q", got)
		}
	}
}

func TestEntriesComeOnRequest(t *testing.T) {
	b := newBench(t)
	id := b.watch(&filesystem.CreateWatcherRequest{IncludeEntry: true})
	b.upload("f", "1234")
	b.do(os.Remove(filepath.Join(b.root, "f")))
	var events []*filesystem.FilesystemEvent
	eventually(t, func() bool {
		more, err := b.take(id)
		b.do(err)
		events = append(events, more...)
		return len(events) == 4
	})
	for _, event := range events {
		removed := event.Type == filesystem.EventType_EVENT_TYPE_REMOVE
		if removed && event.Entry != nil {
			t.Errorf("%s has an entry", text(event))
		}
		if event.Entry != nil && event.Entry.Path != b.root+"/f" {
			t.Errorf("entry %v", event.Entry)
		}
	}
}

func TestStream(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request := connect.NewRequest(&filesystem.WatchDirRequest{Path: b.root})
	request.Header().Set("Keepalive-Ping-Interval", "1")
	stream, err := b.rpc.WatchDir(ctx, request)
	b.do(err)
	defer stream.Close()
	if !stream.Receive() || stream.Msg().GetStart() == nil {
		t.Fatalf("no start: %v", stream.Err())
	}
	b.upload("f", "x")
	for _, want := range []string{"create f", "chmod f", "write f"} {
		if !stream.Receive() || text(stream.Msg().GetFilesystem()) != want {
			t.Fatalf("%v, want %s; %v", stream.Msg(), want, stream.Err())
		}
	}
	if !stream.Receive() || stream.Msg().GetKeepalive() == nil {
		t.Fatalf("no keepalive: %v", stream.Msg())
	}
	cancel()
	if stream.Receive() {
		t.Errorf("after the end: %v", stream.Msg())
	}
	eventually(t, func() bool {
		b.service.mu.Lock()
		defer b.service.mu.Unlock()
		return b.service.active == 0
	})
}

func TestStreamEndsAtItsDeadline(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	stream, err := b.rpc.WatchDir(ctx, connect.NewRequest(&filesystem.WatchDirRequest{Path: b.root}))
	b.do(err)
	defer stream.Close()
	for stream.Receive() {
	}
	if connect.CodeOf(stream.Err()) != connect.CodeDeadlineExceeded {
		t.Errorf("error %v", stream.Err())
	}
}

func TestRefusedWatches(t *testing.T) {
	b := newBench(t)
	b.write("file", "")
	for path, code := range map[string]connect.Code{
		"none": connect.CodeNotFound, "file": connect.CodeInvalidArgument, "file/below": connect.CodeNotFound,
		strings.Repeat("n", 300): connect.CodeInvalidArgument,
	} {
		_, err := b.rpc.CreateWatcher(context.Background(), connect.NewRequest(&filesystem.CreateWatcherRequest{Path: filepath.Join(b.root, path)}))
		if connect.CodeOf(err) != code {
			t.Errorf("%.20s: %v", path, err)
		}
	}
	_, err := b.take("w12345678901234567890")
	_, removeErr := b.rpc.RemoveWatcher(context.Background(), connect.NewRequest(&filesystem.RemoveWatcherRequest{WatcherId: "x"}))
	if connect.CodeOf(err) != connect.CodeNotFound || connect.CodeOf(removeErr) != connect.CodeNotFound {
		t.Errorf("unknown watchers: %v, %v", err, removeErr)
	}
}

func TestNetworkFileSystemsAreKnownByTheirNumbers(t *testing.T) {
	for magic, want := range map[uint32]bool{
		0x6969: true, 0x65735546: true, 0x517B: true, 0xFE534D42: true, 0xFF534D42: true, // NFS, FUSE, SMB, SMB2, CIFS
		0xEF53: false, 0x01021994: false, 0x794c7630: false, 0x01021997: false, // ext4, tmpfs, overlayfs, 9p (gVisor)
	} {
		if isNetworkFS(magic) != want {
			t.Errorf("%#x", magic)
		}
	}
}

func TestWatcherLimit(t *testing.T) {
	b := newBench(t)
	ids := make([]string, 0, maxWatchers)
	for range maxWatchers {
		ids = append(ids, b.watch(&filesystem.CreateWatcherRequest{}))
	}
	if len(ids[0]) != 21 || ids[0][0] != 'w' || ids[0] == ids[1] {
		t.Errorf("ids %v", ids[:2])
	}
	_, err := b.rpc.CreateWatcher(context.Background(), connect.NewRequest(&filesystem.CreateWatcherRequest{Path: b.root}))
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	b.write("f", "")
	for _, id := range ids[:3] {
		b.want(id, "create f")
		_, err := b.rpc.RemoveWatcher(context.Background(), connect.NewRequest(&filesystem.RemoveWatcherRequest{WatcherId: id}))
		b.do(err)
	}
	b.watch(&filesystem.CreateWatcherRequest{})
}

func TestRemovedRoot(t *testing.T) {
	b := newBench(t)
	dir := filepath.Join(b.root, "dir")
	b.do(os.Mkdir(dir, 0o755))
	id := b.watch(&filesystem.CreateWatcherRequest{Path: dir})
	b.do(os.Remove(dir))
	var got []string
	eventually(t, func() bool {
		events, err := b.take(id)
		b.do(err)
		for _, event := range events {
			got = append(got, text(event))
		}
		return len(got) > 0 && got[len(got)-1] == "remove ."
	})
}

func TestQueueTellsWhatItLost(t *testing.T) {
	b := newBench(t)
	id := b.watch(&filesystem.CreateWatcherRequest{})
	b.service.mu.Lock()
	w := b.service.polled[id]
	b.service.mu.Unlock()
	for i := range maxQueued + 5 {
		w.queue.push(&filesystem.FilesystemEvent{Name: fmt.Sprint(i), Type: filesystem.EventType_EVENT_TYPE_CREATE})
	}
	if _, err := b.take(id); connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "at least 5 were lost") {
		t.Errorf("error %v", err)
	}
	events, err := b.take(id)
	if err != nil || len(events) != maxQueued || events[0].Name != "5" {
		t.Errorf("%d events, %v", len(events), err)
	}
	if got := w.hub.queued.Load(); got != 0 {
		t.Errorf("%d counted in all queues", got)
	}
	w.hub.mu.Lock()
	w.hub.overflow()
	w.hub.mu.Unlock()
	if _, err := b.take(id); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("after the kernel's overflow: %v", err)
	}
	b.write("still", "")
	b.want(id, "create still")
}

func TestEqualEventsInARowAreOne(t *testing.T) {
	q := queue{ready: make(chan struct{}, 1), total: new(atomic.Int64)}
	push := func(name string, kind filesystem.EventType, size int64) {
		q.push(&filesystem.FilesystemEvent{Name: name, Type: kind, Entry: &filesystem.EntryInfo{Size: size}})
	}
	const created, written = filesystem.EventType_EVENT_TYPE_CREATE, filesystem.EventType_EVENT_TYPE_WRITE
	push("f", created, 0)
	for size := range int64(5) {
		push("f", written, size)
	}
	push("g", written, 9)
	push("f", written, 9)
	events, err := q.take()
	if err != nil || len(events) != 4 || events[1].Entry.Size != 4 || text(events[2]) != "write g" {
		t.Errorf("%v %v", events, err)
	}
}

func TestTooManyDirectoriesEndTheWatchOnly(t *testing.T) {
	b := newBench(t)
	small := b.watch(&filesystem.CreateWatcherRequest{})
	id := b.watch(&filesystem.CreateWatcherRequest{Recursive: true})
	b.service.hub.mu.Lock()
	b.service.hub.maxDirs = 3
	b.service.hub.mu.Unlock()
	b.do(os.MkdirAll(filepath.Join(b.root, "a/b/c/d"), 0o755))
	var failure error
	eventually(t, func() bool {
		_, failure = b.take(id)
		return failure != nil
	})
	if connect.CodeOf(failure) != connect.CodeResourceExhausted || !strings.Contains(failure.Error(), "3 directories") {
		t.Errorf("error %v", failure)
	}
	_, err := b.rpc.CreateWatcher(context.Background(), connect.NewRequest(&filesystem.CreateWatcherRequest{Path: b.root, Recursive: true}))
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a new one over the limit: %v", err)
	}
	b.want(small, "create a")
}

func TestAllQueuesTogetherAreBounded(t *testing.T) {
	b := newBench(t)
	id := b.watch(&filesystem.CreateWatcherRequest{})
	b.service.hub.queued.Add(maxQueuedTotal)
	b.service.mu.Lock()
	w := b.service.polled[id]
	b.service.mu.Unlock()
	w.queue.push(&filesystem.FilesystemEvent{Name: "f"})
	if _, err := b.take(id); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("error %v", err)
	}
}
