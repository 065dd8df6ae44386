package build

import (
	"path"
	"strings"
)

// target says where entries of an archive go. A file goes to the very path, or into it where that is a folder; of a
// folder the content is merged; what a pattern finds goes into the folder one by one.
type target struct {
	src, dest string
	isFolder  bool // dest is one, or is written as one
	pattern   []string
	anyDepth  bool
	first     string // the one file that was put at dest itself
}

func newTarget(src, dest string, isFolder bool) *target {
	t := &target{src: path.Clean(strings.TrimPrefix(src, "./"))}
	t.isFolder = isFolder || strings.HasSuffix(dest, "/")
	t.dest = path.Clean(dest)
	if strings.ContainsAny(t.src, "*?[{") {
		t.pattern = strings.Split(t.src, "/")
		t.anyDepth = strings.Contains(t.src, "**")
	}
	return t
}

// of is the place of an entry; ok is false for what is not asked for. moved names the entry that has to move into a
// folder first.
func (t *target) of(name string, isFolder bool) (place, moved string, ok bool) {
	switch {
	case t.pattern == nil:
		return t.ofPath(name, isFolder)
	case t.anyDepth:
		t.isFolder = true
		return path.Join(t.dest, t.below(name)), "", true
	}
	return t.ofPattern(name, isFolder)
}

func (t *target) ofPath(name string, isFolder bool) (place, moved string, ok bool) {
	switch {
	case t.src == ".":
		return path.Join(t.dest, name), "", true
	case name == t.src && (isFolder || !t.isFolder):
		return t.dest, "", true
	case name == t.src:
		return path.Join(t.dest, path.Base(name)), "", true
	case strings.HasPrefix(name, t.src+"/"):
		return path.Join(t.dest, name[len(t.src)+1:]), "", true
	}
	return "", "", false
}

// ofPattern: of a folder that the pattern finds the content is merged, a file keeps its name.
func (t *target) ofPattern(name string, isFolder bool) (place, moved string, ok bool) {
	parts := strings.Split(name, "/")
	depth := len(t.pattern)
	if len(parts) < depth {
		return "", "", false // a folder on the way
	}
	if isFolder || len(parts) > depth {
		t.isFolder = true
		return path.Join(t.dest, strings.Join(parts[depth:], "/")), t.takeFirst(), true
	}
	if t.isFolder {
		return path.Join(t.dest, path.Base(name)), t.takeFirst(), true
	}
	t.isFolder, t.first = true, name
	return t.dest, "", true
}

func (t *target) takeFirst() string {
	first := t.first
	t.first = ""
	return first
}

// below is the part of a name after the folders that the pattern names plainly.
func (t *target) below(name string) string {
	for _, part := range t.pattern {
		if name == part {
			return "" // one of those folders
		}
		if strings.ContainsAny(part, "*?[{") || !strings.HasPrefix(name, part+"/") {
			break
		}
		name = name[len(part)+1:]
	}
	return name
}
