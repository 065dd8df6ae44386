package files

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOctetUploadMakesParentsAndOwnsThem(t *testing.T) {
	b := newBench(t)
	list := b.put("a/b/naïve.txt", "hello", nil).files(t)
	path := filepath.Join(b.home, "a/b/naïve.txt")
	if len(list) != 1 || list[0].Path != path || list[0].Name != "naïve.txt" || list[0].Type != "file" || list[0].Metadata != nil {
		t.Fatalf("reply %+v", list)
	}
	if got := read(t, path); got != "hello" {
		t.Fatalf("content %q", got)
	}
	for path, mode := range map[string]os.FileMode{path: 0o644, filepath.Dir(path): 0o755 | os.ModeDir, filepath.Join(b.home, "a"): 0o755 | os.ModeDir} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if info.Mode() != mode || st.Uid != userUID || st.Gid != userGID {
			t.Errorf("%s: mode %v owner %d:%d", path, info.Mode(), st.Uid, st.Gid)
		}
	}
}

func TestMultipartUploadOfSeveralFiles(t *testing.T) {
	b := newBench(t)
	body, header := form(t, part{"file", "one.txt", "1"}, part{"note", "x", "ignored"},
		part{"file", "dir/zwei ü.txt", "2"}, part{"file", b.home + "/abs/three", strings.Repeat("3", 1<<20)})
	list := b.call("POST", nil, header, body).files(t)
	if len(list) != 3 || list[0].Name != "one.txt" || list[1].Name != "zwei ü.txt" || list[2].Path != b.home+"/abs/three" {
		t.Fatalf("reply %+v", list)
	}
	if read(t, b.home+"/dir/zwei ü.txt") != "2" || len(read(t, b.home+"/abs/three")) != 1<<20 {
		t.Fatal("content differs")
	}
}

func TestMultipartPathQueryWinsOverFileName(t *testing.T) {
	b := newBench(t)
	body, header := form(t, part{"file", "other.txt", "x"})
	b.call("POST", url.Values{"path": {"wanted.txt"}}, header, body).files(t)
	if read(t, b.home+"/wanted.txt") != "x" {
		t.Fatal("not written to the path of the query")
	}
}

func TestRefusedUploads(t *testing.T) {
	b := newBench(t)
	if err := os.Mkdir(b.home+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, b.home+"/file", "old")
	octets := map[string]string{"Content-Type": "application/octet-stream"}
	with := func(name, value string) map[string]string {
		return map[string]string{"Content-Type": "application/octet-stream", name: value}
	}
	for _, c := range []struct {
		name   string
		query  url.Values
		header map[string]string
		status int
		text   string
	}{
		{"no path", nil, octets, 400, "path"},
		{"directory", url.Values{"path": {"dir"}}, octets, 400, "path is a directory"},
		{"trailing slash", url.Values{"path": {"new/"}}, octets, 400, "directory"},
		{"file as parent", url.Values{"path": {"file/x"}}, octets, 400, "not a directory"},
		{"home of others", url.Values{"path": {"~root/x"}}, octets, 400, "~root"},
		{"NUL", url.Values{"path": {"a\x00b"}}, octets, 400, "NUL"},
		{"long name", url.Values{"path": {strings.Repeat("n", 300)}}, octets, 400, "too long"},
		{"user", url.Values{"path": {"x"}, "username": {"nobody-here"}}, octets, 401, "invalid username: 'nobody-here'"},
		{"content type", url.Values{"path": {"x"}}, map[string]string{"Content-Type": "text/plain"}, 400, "text/plain"},
		{"no content type", url.Values{"path": {"x"}}, nil, 400, "Content-Type"},
		{"encoding", url.Values{"path": {"x"}}, with("Content-Encoding", "br"), 400, "br"},
		{"two encodings", url.Values{"path": {"x"}}, with("Content-Encoding", "gzip, gzip"), 400, "gzip, gzip"},
		{"broken gzip", url.Values{"path": {"x"}}, with("Content-Encoding", "gzip"), 400, "gzip"},
		{"metadata value", url.Values{"path": {"x"}}, with("X-Metadata-A", "grün"), 400, "printable ASCII"},
		{"metadata key", url.Values{"path": {"x"}}, with("X-Metadata-"+strings.Repeat("k", 247), "v"), 400, "246"},
		{"metadata total", url.Values{"path": {"x"}}, with("X-Metadata-A", strings.Repeat("v", 4096)), 400, "4096"},
		{"boundary", url.Values{"path": {"x"}}, map[string]string{"Content-Type": "multipart/form-data"}, 400, "boundary"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := b.call("POST", c.query, c.header, strings.NewReader("body")).fault(t, c.status)
			if !strings.Contains(got, c.text) {
				t.Errorf("message %q lacks %q", got, c.text)
			}
		})
	}
	if got := read(t, b.home+"/file"); got != "old" {
		t.Errorf("a refused upload changed a file: %q", got)
	}
	if found := leftovers(t, b.home); len(found) > 0 {
		t.Errorf("left behind: %v", found)
	}
}

func TestSameTargetTwiceWritesNothing(t *testing.T) {
	b := newBench(t)
	if err := os.Symlink("same", b.home+"/alias"); err != nil {
		t.Fatal(err)
	}
	write(t, b.home+"/same", "old")
	for _, second := range []string{"same", "./x/../same", "alias"} {
		body, header := form(t, part{"file", "same", "1"}, part{"file", second, "2"})
		if got := b.call("POST", nil, header, body).fault(t, 400); !strings.Contains(got, "twice") {
			t.Errorf("%s: message %q", second, got)
		}
	}
	if got := read(t, b.home+"/same"); got != "old" {
		t.Errorf("content %q", got)
	}
	if found := leftovers(t, b.home); len(found) > 0 {
		t.Errorf("left behind: %v", found)
	}
}

func TestMultipartWithoutFileOrCutShort(t *testing.T) {
	b := newBench(t)
	body, header := form(t, part{"other", "x", "1"})
	b.call("POST", nil, header, body).fault(t, 400)
	body, header = form(t, part{"file", "", "1"})
	b.call("POST", nil, header, body).fault(t, 400)
	body, header = form(t, part{"file", "cut", strings.Repeat("x", 1000)})
	b.call("POST", nil, header, io.LimitReader(body, 500)).fault(t, 400)
	if _, err := os.Stat(b.home + "/cut"); err == nil {
		t.Error("half a file took its place")
	}
	if found := leftovers(t, b.home); len(found) > 0 {
		t.Errorf("left behind: %v", found)
	}
}

func TestOverwriteKeepsModeAndIsAtomic(t *testing.T) {
	b := newBench(t)
	path := b.home + "/run.sh"
	write(t, path, "old content")
	if err := os.Chmod(path, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(path, "user.mine", []byte("kept"), 0); err != nil {
		t.Skip("no user attributes here:", err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	b.put("run.sh", "new", nil).files(t)
	if before, _ := io.ReadAll(reader); string(before) != "old content" {
		t.Errorf("a reader of the old file sees %q", before)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o750 || read(t, path) != "new" || info.Sys().(*syscall.Stat_t).Uid != userUID {
		t.Errorf("mode %v content %q", info.Mode(), read(t, path))
	}
	value := make([]byte, 16)
	if n, err := unix.Getxattr(path, "user.mine", value); err != nil || string(value[:n]) != "kept" {
		t.Errorf("attribute lost: %v", err)
	}
}

func TestUploadThroughLinks(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/target", "old")
	for link, target := range map[string]string{"link": "target", "second": "link", "dangling": "made", "loop": "loop"} {
		if err := os.Symlink(target, b.home+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	list := b.put("second", "new", nil).files(t)
	if list[0].Path != b.home+"/second" || read(t, b.home+"/target") != "new" {
		t.Errorf("reply %+v, target %q", list, read(t, b.home+"/target"))
	}
	if target, err := os.Readlink(b.home + "/second"); err != nil || target != "link" {
		t.Error("the link itself was replaced")
	}
	b.put("dangling", "made", nil).files(t)
	if read(t, b.home+"/made") != "made" {
		t.Error("a dangling link was not written through")
	}
	b.put("loop", "x", nil).fault(t, 400)
}

func TestSpecialTargetsAreWrittenInPlace(t *testing.T) {
	b := newBench(t)
	b.put("/dev/null", "gone", nil).files(t)
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Fatal("/dev/null is no device any more")
	}
	fifo := b.home + "/fifo"
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	b.put("fifo", "x", nil).fault(t, 400) // nobody reads
	reader, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	b.put("fifo", "through", nil).files(t)
	got := make([]byte, 7)
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "through" {
		t.Errorf("the pipe got %q, %v", got, err)
	}
	listener, err := net.Listen("unix", b.home+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	b.put("socket", "x", nil).fault(t, 400)
	b.get("socket", nil).fault(t, 400)
}

func TestGzipBodies(t *testing.T) {
	b := newBench(t)
	var body bytes.Buffer
	writer := gzip.NewWriter(&body)
	_, _ = writer.Write([]byte("packed"))
	_ = writer.Close()
	b.put("x", body.String(), map[string]string{"Content-Encoding": "gzip"}).files(t)
	if read(t, b.home+"/x") != "packed" {
		t.Error("content differs")
	}
	b.put("y", body.String()[:body.Len()-6], map[string]string{"Content-Encoding": "gzip"}).fault(t, 400)
	if _, err := os.Stat(b.home + "/y"); err == nil {
		t.Error("a cut gzip body made a file")
	}
}

func TestInflaterStopsAtItsLimit(t *testing.T) {
	limited := &inflater{source: strings.NewReader(strings.Repeat("x", 100)), left: 99}
	if _, err := io.ReadAll(limited); err == nil || faultOf(err, "").status != 413 {
		t.Errorf("error %v", err)
	}
}

func TestMetadataIsStoredLowerCaseAndReplaced(t *testing.T) {
	b := newBench(t)
	list := b.put("m", "x", map[string]string{"X-Metadata-Author": "Ann", "X-METADATA-tag_1": "a b"}).files(t)
	if got := list[0].Metadata; len(got) != 2 || got["author"] != "Ann" || got["tag_1"] != "a b" {
		t.Fatalf("metadata %v", got)
	}
	if got := readMetadata(b.home + "/m"); len(got) != 2 || got["author"] != "Ann" {
		t.Fatalf("stored %v", got)
	}
	b.put("m", "x", map[string]string{"X-Metadata-Other": "1"}).files(t)
	if got := readMetadata(b.home + "/m"); len(got) != 1 || got["other"] != "1" {
		t.Fatalf("after replacing %v", got)
	}
	b.put("m", "x", nil).files(t)
	if got := readMetadata(b.home + "/m"); len(got) != 0 {
		t.Fatalf("after an upload without metadata %v", got)
	}
	long := strings.Repeat("k", 246)
	b.put("limits", "x", map[string]string{"X-Metadata-" + long: "v"}).files(t)
	if got := readMetadata(b.home + "/limits"); got[long] != "v" {
		t.Fatalf("the longest key is not stored: %v", got)
	}
}

func TestFullDiskGives507AndLeavesTheOldFile(t *testing.T) {
	b := newBench(t)
	dir := b.home + "/small"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,nr_inodes=8"); err != nil {
		t.Skip("cannot mount here:", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	write(t, dir+"/f", "old")
	got := b.put("small/f", strings.Repeat("x", 20<<20), nil).fault(t, 507)
	if !strings.Contains(got, "disk space") || read(t, dir+"/f") != "old" {
		t.Errorf("message %q, content %q", got, read(t, dir+"/f"))
	}
	if found := leftovers(t, dir); len(found) > 0 {
		t.Errorf("left behind: %v", found)
	}
	for i := 0; os.WriteFile(dir+"/"+strconv.Itoa(i), nil, 0o644) == nil; i++ {
	}
	b.put("small/one-more", "", nil).fault(t, 507) // no inode left
}

func TestMountPointFileIsWrittenInPlace(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/source", "old")
	write(t, b.home+"/hosts", "")
	if err := unix.Mount(b.home+"/source", b.home+"/hosts", "", unix.MS_BIND, ""); err != nil {
		t.Skip("cannot mount here:", err)
	}
	defer func() { _ = unix.Unmount(b.home+"/hosts", unix.MNT_DETACH) }()
	b.put("hosts", "127.0.0.1 localhost", nil).files(t)
	if got := read(t, b.home+"/source"); got != "127.0.0.1 localhost" {
		t.Errorf("content %q", got)
	}
	if found := leftovers(t, b.home); len(found) > 0 {
		t.Errorf("left behind: %v", found)
	}
}

func TestFileSystemWithoutAttributes(t *testing.T) {
	b := newBench(t)
	dir := b.home + "/plain"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Skip("cannot mount here:", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	b.put("plain/f", "x", nil).files(t)
	if got := b.stat("plain/f"); got.Metadata != nil {
		t.Errorf("metadata %v", got.Metadata)
	}
	if got := b.put("plain/g", "x", map[string]string{"X-Metadata-K": "v"}).fault(t, 500); !strings.Contains(got, "no user attributes") {
		t.Errorf("message %q", got)
	}
	if _, err := os.Stat(dir + "/g"); err == nil || len(leftovers(t, dir)) > 0 {
		t.Error("the refused upload left something behind")
	}
}

func TestReadersNeverSeeHalfAFile(t *testing.T) {
	b := newBench(t)
	const size = 600 << 10 // more than two blocks
	whole := map[string]bool{}
	for _, letter := range []string{"a", "b", "c"} {
		whole[strings.Repeat(letter, size)] = true
	}
	b.put("f", strings.Repeat("a", size), nil).files(t)
	var writers sync.WaitGroup
	for content := range whole {
		writers.Go(func() {
			for range 8 {
				if got := b.put("f", content, nil); got.status != 200 {
					t.Errorf("status %d", got.status)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for {
		if got := b.get("f", nil); got.status != 200 || !whole[got.body] {
			t.Errorf("status %d, %d bytes that nobody wrote", got.status, len(got.body))
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestTransfersAreBounded(t *testing.T) {
	b := newBench(t)
	for range maxTransfers {
		b.service.transfers <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if f := b.service.begin(ctx); f == nil || f.status != statusClientGone {
		t.Errorf("fault %v", f)
	}
	go func() { b.service.end() }()
	if f := b.service.begin(context.Background()); f != nil {
		t.Errorf("fault %v", f)
	}
	for range maxTransfers {
		b.service.end()
	}
}

func TestLeavingClientLeavesNothing(t *testing.T) {
	b := newBench(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "POST /files?path=half HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: 10000000\r\n\r\n")
	_, _ = conn.Write(make([]byte, 1<<20))
	eventually(t, func() bool { return len(leftovers(t, b.home)) == 1 })
	conn.Close()
	eventually(t, func() bool { return len(leftovers(t, b.home)) == 0 })
	if _, err := os.Stat(b.home + "/half"); err == nil {
		t.Error("half a file took its place")
	}
}

func eventually(t testing.TB, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to be so within 5 s")
		}
	}
}

func TestCompose(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/p1", "one ")
	write(t, b.home+"/p2", "two")
	post := func(body string) reply {
		return b.callAt("/files/compose", "POST", nil, map[string]string{"Content-Type": "application/json"}, strings.NewReader(body))
	}
	for body, status := range map[string]int{
		`{`: 400, `{"destination":"d"}`: 400, `{"source_paths":["p1"],"destination":"p1"}`: 400,
		`{"source_paths":["p1","none"],"destination":"d"}`: 404, `{"source_paths":["/dev/zero"],"destination":"d"}`: 400,
		`{"source_paths":["p1"],"destination":"d","username":"ghost"}`: 401,
	} {
		post(body).fault(t, status)
	}
	if got := post(`{"source_paths":["p1","p2"],"destination":"dir/whole"}`); got.status != 200 || !strings.Contains(got.body, `"name":"whole"`) {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if read(t, b.home+"/dir/whole") != "one two" {
		t.Error("content differs")
	}
	if _, err := os.Stat(b.home + "/p1"); err == nil {
		t.Error("the parts are still there")
	}
}
