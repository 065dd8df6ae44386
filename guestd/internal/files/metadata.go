package files

import (
	"errors"
	"net/http"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	metadataHeader = "X-Metadata-"
	attributeSpace = "user.e2b."
)

// parseMetadata reads the X-Metadata-* headers of an upload. Header names have no case,
// so keys come out in lower case.
func parseMetadata(header http.Header) (map[string]string, error) {
	var metadata map[string]string
	total := 0
	for name, values := range header {
		if len(name) < len(metadataHeader) || !strings.EqualFold(name[:len(metadataHeader)], metadataHeader) {
			continue
		}
		key := strings.ToLower(name[len(metadataHeader):])
		value := values[0]
		switch {
		case key == "" || !isPrintableASCII(key) || strings.ContainsAny(key, " /"):
			return nil, invalid("cannot store metadata: key '%s' must be a non-empty HTTP token", printable(key))
		case len(key) > maxMetadataKeyBytes:
			return nil, invalid("cannot store metadata: key '%.32s...' has more than %d bytes", key, maxMetadataKeyBytes)
		case len(values) > 1:
			return nil, invalid("cannot store metadata: key '%s' is given more than once", key)
		case !isPrintableASCII(value):
			return nil, invalid("cannot store metadata: the value of '%s' must be printable ASCII", key)
		}
		if total += len(key) + len(value); total > maxMetadataBytes {
			return nil, invalid("cannot store metadata: keys and values have more than %d bytes in total", maxMetadataBytes)
		}
		if metadata == nil {
			metadata = map[string]string{}
		}
		metadata[key] = value
	}
	return metadata, nil
}

func isPrintableASCII(text string) bool {
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			return false
		}
	}
	return true
}

// readMetadata shows the user.e2b.* attributes of a file. A file system without extended
// attributes has none, and that is no error.
func readMetadata(path string) map[string]string {
	var metadata map[string]string
	total := 0
	for _, name := range attributeNames(func(dest []byte) (int, error) { return unix.Listxattr(path, dest) }) {
		key, ours := strings.CutPrefix(name, attributeSpace)
		if !ours || key == "" {
			continue
		}
		value, err := attribute(func(dest []byte) (int, error) { return unix.Getxattr(path, name, dest) })
		if err != nil {
			continue // removed meanwhile
		}
		if total += len(key) + len(value); total > maxShownMetadataBytes {
			break
		}
		if metadata == nil {
			metadata = map[string]string{}
		}
		metadata[printable(key)] = printable(string(value))
	}
	return metadata
}

// replaceMetadata makes metadata the whole set of user.e2b.* attributes of an open file.
func replaceMetadata(fd int, path string, metadata map[string]string) error {
	for _, name := range attributeNames(func(dest []byte) (int, error) { return unix.Flistxattr(fd, dest) }) {
		if key, ours := strings.CutPrefix(name, attributeSpace); ours {
			if _, kept := metadata[key]; !kept {
				if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, unix.ENODATA) {
					return faultOf(err, path)
				}
			}
		}
	}
	for key, value := range metadata {
		err := unix.Fsetxattr(fd, attributeSpace+key, []byte(value), 0)
		switch {
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM):
			return internal("cannot store metadata of '%s': its file system has no user attributes; leave the metadata out", path)
		case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ERANGE), isAttributeOverflow(fd, err):
			return invalid("cannot store metadata of '%s': it does not fit into the attributes of its file system; use less", path)
		case err != nil:
			return faultOf(err, path)
		}
	}
	return nil
}

// isAttributeOverflow tells "this file's attributes are full" from "the disk is full",
// for which ext4 has the same number.
func isAttributeOverflow(fd int, err error) bool {
	if !errors.Is(err, unix.ENOSPC) {
		return false
	}
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Bfree > 16
}

// copyAttributes takes over the attributes that writing in place would have left alone:
// access lists and the user's own ones, not the security labels that a write clears.
func copyAttributes(from string, fd int) {
	for _, name := range attributeNames(func(dest []byte) (int, error) { return unix.Listxattr(from, dest) }) {
		if strings.HasPrefix(name, attributeSpace) || strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "trusted.") {
			continue
		}
		if value, err := attribute(func(dest []byte) (int, error) { return unix.Getxattr(from, name, dest) }); err == nil {
			_ = unix.Fsetxattr(fd, name, value, 0) // the upload matters more than an attribute
		}
	}
}

func attributeNames(list func([]byte) (int, error)) []string {
	content, err := attribute(list)
	if err != nil || len(content) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(content), "\x00"), "\x00")
}

// attribute calls get with a buffer that is large enough; the kernel's own limit is 64 KiB.
func attribute(get func([]byte) (int, error)) ([]byte, error) {
	var small [512]byte
	n, err := get(small[:])
	if err == nil {
		return append([]byte(nil), small[:n]...), nil
	}
	if !errors.Is(err, unix.ERANGE) {
		return nil, err
	}
	large := make([]byte, 64<<10)
	if n, err = get(large); err != nil {
		return nil, err
	}
	return large[:n], nil
}
