package files

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"warren.dev/guestd/gen/filesystem"
)

func (b *bench) stat(path string) *filesystem.EntryInfo {
	b.Helper()
	got, err := b.rpc.Stat(context.Background(), connect.NewRequest(&filesystem.StatRequest{Path: path}))
	if err != nil {
		b.Fatal(err)
	}
	return got.Msg.Entry
}

func (b *bench) list(path string, depth uint32) ([]string, error) {
	b.Helper()
	got, err := b.rpc.ListDir(context.Background(), connect.NewRequest(&filesystem.ListDirRequest{Path: path, Depth: depth}))
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range got.Msg.Entries {
		paths = append(paths, entry.Path)
	}
	return paths, nil
}

func wantCode(t testing.TB, err error, code connect.Code, text string) {
	t.Helper()
	if connect.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want code %v with %q", err, code, text)
	}
}

func TestStatOfEachKind(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/file", "12345")
	steps := []error{
		os.Chmod(b.home+"/file", 0o640), os.Mkdir(b.home+"/dir", 0o755), os.Chmod(b.home+"/dir", 0o755|os.ModeSticky),
		os.Symlink("file", b.home+"/link"), os.Symlink("dir", b.home+"/dirlink"), os.Symlink("nowhere", b.home+"/broken"),
		os.Symlink("loop", b.home+"/loop"), syscall.Mkfifo(b.home+"/fifo", 0o600), os.Chown(b.home+"/file", userUID, userGID),
		os.Chown(b.home+"/dir", 99999, 99998), unix.Setxattr(b.home+"/file", "user.e2b.k", []byte("v"), 0),
	}
	for i, err := range steps {
		if err != nil {
			t.Fatal(i, err)
		}
	}
	const (
		none = filesystem.FileType_FILE_TYPE_UNSPECIFIED
		file = filesystem.FileType_FILE_TYPE_FILE
		dir  = filesystem.FileType_FILE_TYPE_DIRECTORY
	)
	for _, c := range []struct {
		name        string
		kind        filesystem.FileType
		mode        uint32
		permissions string
		target      string
	}{
		{"file", file, 0o640, "-rw-r-----", ""}, {"dir", dir, 0o755, "dtrwxr-xr-x", ""},
		{"link", file, 0o640, "Lrwxrwxrwx", "file"}, {"dirlink", dir, 0o755, "Lrwxrwxrwx", "dir"},
		{"broken", none, 0, "Lrwxrwxrwx", "broken"}, {"loop", none, 0, "Lrwxrwxrwx", "loop"}, {"fifo", none, 0o600, "prw-------", ""},
	} {
		got := b.stat(c.name)
		if got.Name != c.name || got.Path != b.home+"/"+c.name || got.Type != c.kind || got.Mode != c.mode || got.Permissions != c.permissions {
			t.Errorf("%s: %v", c.name, got)
		}
		if (c.target == "") != (got.SymlinkTarget == nil) || (c.target != "" && got.GetSymlinkTarget() != b.home+"/"+c.target) {
			t.Errorf("%s: target %v", c.name, got.SymlinkTarget)
		}
		if got.ModifiedTime.AsTime().IsZero() || got.IsSymlink {
			t.Errorf("%s: time %v, is_symlink %v", c.name, got.ModifiedTime, got.IsSymlink)
		}
	}
	if got := b.stat("file"); got.Owner != "user" || got.Group != "users" || got.Size != 5 || got.Metadata["k"] != "v" {
		t.Errorf("%v", got)
	}
	if got := b.stat("dir"); got.Owner != "99999" || got.Group != "99998" || got.Metadata != nil {
		t.Errorf("%v", got)
	}
	if got := b.stat("~"); got.Path != b.home || got.Name != "home" {
		t.Errorf("%v", got)
	}
}

func TestStatFaults(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/file", "")
	for path, code := range map[string]connect.Code{
		"none": connect.CodeNotFound, "file/below": connect.CodeNotFound, "~x": connect.CodeInvalidArgument,
		"a\x00": connect.CodeInvalidArgument, strings.Repeat("a", 300): connect.CodeInvalidArgument,
	} {
		_, err := b.rpc.Stat(context.Background(), connect.NewRequest(&filesystem.StatRequest{Path: path}))
		wantCode(t, err, code, "")
	}
	request := connect.NewRequest(&filesystem.StatRequest{Path: "/"})
	request.Header().Set("Authorization", "Basic Z2hvc3Q6") // ghost:
	_, err := b.rpc.Stat(context.Background(), request)
	wantCode(t, err, connect.CodeUnauthenticated, "invalid username: 'ghost'")
	request.Header().Set("Authorization", "Basic cm9vdDo=") // root:
	request.Msg.Path = "~"
	if _, err := b.rpc.Stat(context.Background(), request); err != nil {
		t.Error(err)
	}
}

func TestListDirOrderDepthAndPrefix(t *testing.T) {
	b := newBench(t)
	for _, dir := range []string{"r/b/x", "r/a", "r/b.d"} {
		if err := os.MkdirAll(filepath.Join(b.home, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, b.home+"/r/b/x/deep", "")
	write(t, b.home+"/r/a/f", "")
	for link, target := range map[string]string{"r/zlink": "b", "alias": "r", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(b.home, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path  string
		depth uint32
		want  string
	}{
		{"r", 0, "r/a r/b r/b.d r/zlink"}, {"r", 1, "r/a r/b r/b.d r/zlink"},
		{"r", 2, "r/a r/a/f r/b r/b/x r/b.d r/zlink"}, {"alias", 3, "alias/a alias/a/f alias/b alias/b/x alias/b/x/deep alias/b.d alias/zlink"},
		{"r/a/", 1, "r/a/f"}, {"r/zlink", 1, "r/zlink/x"}, {b.home + "/r/b/../a", 1, "r/a/f"},
	} {
		got, err := b.list(c.path, c.depth)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.ReplaceAll(strings.Join(got, " "), b.home+"/", ""); text != c.want {
			t.Errorf("%s at %d: %s", c.path, c.depth, text)
		}
	}
	_, err := b.list("none", 1)
	wantCode(t, err, connect.CodeNotFound, "does not exist")
	_, err = b.list("r/a/f", 1)
	wantCode(t, err, connect.CodeInvalidArgument, "not a directory")
	_, err = b.list("loop", 1)
	wantCode(t, err, connect.CodeFailedPrecondition, "")
}

func TestListDirSurvivesOddNames(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/bad\xff\xfename\n", "")
	if err := unix.Setxattr(b.home+"/bad\xff\xfename\n", "user.e2b.k", []byte("\xff"), 0); err != nil {
		t.Fatal(err)
	}
	got, err := b.list("", 1)
	if err != nil || len(got) != 1 || !strings.HasSuffix(got[0], "bad\uFFFDname\n") {
		t.Errorf("%q %v", got, err)
	}
}

func TestListDirRefusesToFillTheMemory(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		write(t, fmt.Sprintf("%s/%d", dir, i), "")
	}
	if _, err := readNames(dir, 19); err == nil {
		t.Error("more names than the limit")
	}
	if names, err := readNames(dir, 20); err != nil || len(names) != 20 {
		t.Error(err)
	}
	l := &listing{bytes: maxListBytes}
	if err := l.keep(&filesystem.EntryInfo{Path: "x"}); err == nil {
		t.Error("more bytes than the limit")
	}
}

func TestMakeDir(t *testing.T) {
	b := newBench(t)
	write(t, b.home+"/file", "")
	make := func(path string) (*filesystem.EntryInfo, error) {
		got, err := b.rpc.MakeDir(context.Background(), connect.NewRequest(&filesystem.MakeDirRequest{Path: path}))
		if err != nil {
			return nil, err
		}
		return got.Msg.Entry, nil
	}
	got, err := make("a/b/c/")
	if err != nil || got.Type != filesystem.FileType_FILE_TYPE_DIRECTORY || got.Permissions != "drwxr-xr-x" || got.Owner != "user" || got.Name != "c" {
		t.Errorf("%v %v", got, err)
	}
	if got := b.stat("a"); got.Owner != "user" || got.Group != "users" || got.Mode != 0o755 {
		t.Errorf("parent %v", got)
	}
	_, err = make("a/b")
	wantCode(t, err, connect.CodeAlreadyExists, "already exists")
	_, err = make("file")
	wantCode(t, err, connect.CodeInvalidArgument, "not a directory")
	_, err = make("file/below")
	wantCode(t, err, connect.CodeInternal, "not a directory")
}

func TestMove(t *testing.T) {
	b := newBench(t)
	move := func(from, to string) (*filesystem.EntryInfo, error) {
		got, err := b.rpc.Move(context.Background(), connect.NewRequest(&filesystem.MoveRequest{Source: from, Destination: to}))
		if err != nil {
			return nil, err
		}
		return got.Msg.Entry, nil
	}
	b.put("one", "1", map[string]string{"X-Metadata-K": "v"}).files(t)
	write(t, b.home+"/two", "2")
	got, err := move("one", "new/dir/two")
	if err != nil || got.Path != b.home+"/new/dir/two" || got.Metadata["k"] != "v" || b.stat("new").Owner != "user" {
		t.Errorf("%v %v", got, err)
	}
	if _, err := move("new/dir/two", "two"); err != nil || read(t, b.home+"/two") != "1" {
		t.Errorf("overwriting: %v", err)
	}
	if err := os.Symlink("nowhere", b.home+"/link"); err != nil {
		t.Fatal(err)
	}
	if got, err := move("link", "link2"); err != nil || got.Permissions[0] != 'L' {
		t.Errorf("a link moves itself: %v %v", got, err)
	}
	_, err = move("none", "x/y")
	wantCode(t, err, connect.CodeNotFound, "path '"+b.home+"/none' does not exist")
	if _, err := os.Stat(b.home + "/x"); err == nil {
		t.Error("a failed move made the parent of its destination")
	}
	_, err = move("two", "new")
	wantCode(t, err, connect.CodeInternal, "")
	_, err = move("new", "new/dir/inside")
	wantCode(t, err, connect.CodeInternal, "")
	_, err = move("two", "/dev/shm/"+filepath.Base(b.home)+"-x")
	wantCode(t, err, connect.CodeInternal, "different file systems")
}

func TestRemoveOfDeepAndWideTrees(t *testing.T) {
	b := newBench(t)
	const depth, width = 1000, 100
	here, err := os.Open(b.home)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { here.Close() }()
	for range depth { // no path is long enough for this
		if err := unix.Mkdirat(int(here.Fd()), "d", 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Openat(int(here.Fd()), "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		here.Close()
		here = os.NewFile(uintptr(fd), "d")
	}
	for i := range width {
		dir := fmt.Sprintf("%s/d/w%d", b.home, i)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, dir+"/f", "")
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	_, err = b.rpc.Remove(context.Background(), connect.NewRequest(&filesystem.RemoveRequest{Path: "d"}))
	if restoreErr := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); restoreErr != nil {
		t.Fatal(restoreErr)
	}
	if err != nil {
		t.Fatalf("%.200s", err)
	}
	if _, err := os.Lstat(b.home + "/d"); err == nil {
		t.Error("still there")
	}
}

func TestRemoveBesideABusyWriter(t *testing.T) {
	b := newBench(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_ = os.MkdirAll(fmt.Sprintf("%s/d/%d/x", b.home, i%7), 0o755)
			}
		}
	}()
	for range 20 { // whatever it says, it has to come to an end
		_, _ = b.rpc.Remove(context.Background(), connect.NewRequest(&filesystem.RemoveRequest{Path: "d"}))
	}
	close(stop)
	<-stopped
	if _, err := b.rpc.Remove(context.Background(), connect.NewRequest(&filesystem.RemoveRequest{Path: "d"})); err != nil {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	b := newBench(t)
	remove := func(path string) error {
		_, err := b.rpc.Remove(context.Background(), connect.NewRequest(&filesystem.RemoveRequest{Path: path}))
		return err
	}
	if err := os.MkdirAll(b.home+"/d/e", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, b.home+"/keep", "")
	write(t, b.home+"/d/e/f", "")
	if err := os.Symlink(b.home+"/keep", b.home+"/d/link"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"d", "d", "none/none", "keep/below"} {
		if err := remove(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(b.home + "/d"); err == nil {
		t.Error("still there")
	}
	read(t, b.home+"/keep")
	for _, path := range []string{"/", "//", "/tmp/../"} {
		wantCode(t, remove(path), connect.CodeInvalidArgument, "cannot remove '/'")
	}
	wantCode(t, remove(""), connect.CodeInvalidArgument, "cannot remove an empty path")
	if _, err := os.Stat(b.home); err != nil {
		t.Error(err)
	}
}
