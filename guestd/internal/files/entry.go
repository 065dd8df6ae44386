package files

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/protobuf/types/known/timestamppb"

	"warren.dev/guestd/gen/filesystem"
)

// entry describes what is at path, without following a link there.
func (s *Service) entry(path string) (*filesystem.EntryInfo, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return s.entryOf(path, path, info), nil
}

// describe is entry for watchers, which may come too late: nil when the path is gone.
func (s *Service) describe(path string) *filesystem.EntryInfo {
	entry, err := s.entry(path)
	if err != nil {
		return nil
	}
	return entry
}

// entryOf describes the file at real, which the client knows as shown. Type and mode are
// those of a link's target, while size, permissions, owner and time are the link's own:
// the clients expect this mixture.
func (s *Service) entryOf(shown, real string, info os.FileInfo) *filesystem.EntryInfo {
	entry := &filesystem.EntryInfo{
		Name:         printable(filepath.Base(shown)),
		Path:         printable(shown),
		Type:         typeOf(info.Mode()),
		Mode:         uint32(info.Mode().Perm()),
		Size:         info.Size(),
		Permissions:  info.Mode().String(),
		ModifiedTime: timestamppb.New(info.ModTime()),
		Metadata:     readMetadata(real),
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		entry.Owner = printable(s.book.UserName(st.Uid))
		entry.Group = printable(s.book.GroupName(st.Gid))
	}
	if info.Mode()&os.ModeSymlink != 0 {
		describeLink(entry, shown, real)
	}
	return entry
}

// describeLink puts in what belongs to the target; a link that leads nowhere has no type,
// no mode, and itself as its target.
func describeLink(entry *filesystem.EntryInfo, shown, real string) {
	entry.Type, entry.Mode = filesystem.FileType_FILE_TYPE_UNSPECIFIED, 0
	target, err := filepath.EvalSymlinks(real)
	if err != nil {
		target = shown
	} else if info, err := os.Stat(target); err == nil {
		entry.Type, entry.Mode = typeOf(info.Mode()), uint32(info.Mode().Perm())
	}
	target = printable(target)
	entry.SymlinkTarget = &target
}

func typeOf(mode os.FileMode) filesystem.FileType {
	switch {
	case mode.IsRegular():
		return filesystem.FileType_FILE_TYPE_FILE
	case mode.IsDir():
		return filesystem.FileType_FILE_TYPE_DIRECTORY
	case mode&os.ModeSymlink != 0:
		return filesystem.FileType_FILE_TYPE_SYMLINK
	}
	return filesystem.FileType_FILE_TYPE_UNSPECIFIED
}

// printable makes text fit into a protobuf string, which has to be UTF-8; a file name
// need not be, and one such name must not spoil a whole listing.
func printable(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
