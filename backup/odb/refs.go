package odb

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"emberfs/tiers/cold"
)

const (
	maxRefFile    = 4096
	maxPackedRefs = 256 << 20
	maxSymrefs    = 5 // how many symbolic references git follows
	headRef       = "HEAD"
)

// RefNameFault returns what git-check-ref-format(1) has against the name of a reference, "" for a good one. A good one
// keeps every path inside the repository.
func RefNameFault(name string) string {
	switch {
	case strings.Contains(name, "..") || strings.Contains(name, "@{"):
		return "contains .. or @{"
	case strings.ContainsAny(name, " ~^:?*[\\\x7f"):
		return "contains one of: space ~ ^ : ? * [ \\"
	case strings.HasSuffix(name, "."):
		return "ends with a dot"
	case len(name) > 1000:
		return "is longer than 1,000 bytes"
	case strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 }):
		return "contains a control character"
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return "a part of it is empty, starts with a dot or ends with .lock"
		}
	}
	return ""
}

// checkRefName accepts HEAD and good names below refs/.
func checkRefName(name string) error {
	if name == headRef {
		return nil
	}
	why := RefNameFault(name)
	if !strings.HasPrefix(name, "refs/") {
		why = "is not below refs/"
	}
	if why != "" {
		return fmt.Errorf("reference %q: not a valid name: %s", name, why)
	}
	return nil
}

func (db *DB) refPath(name string) string { return filepath.Join(db.dir, filepath.FromSlash(name)) }

// Ref returns what the reference points to, following symbolic references. If it does not exist, the error is ErrNoRef.
func (db *DB) Ref(name string) (ID, error) {
	for range maxSymrefs {
		if err := checkRefName(name); err != nil {
			return ID{}, err
		}
		id, target, err := db.readRef(name)
		if err != nil || target == "" {
			return id, err
		}
		name = target
	}
	return ID{}, corruptf("reference %s: symbolic references go on and on", name)
}

// readRef reads one reference, and returns its id or, if it is symbolic, the name that it points to.
func (db *DB) readRef(name string) (id ID, target string, err error) {
	id, target, err = db.readLoose(name)
	if !errors.Is(err, ErrNoRef) {
		return id, target, err
	}
	// git adds a reference to packed-refs before it removes the loose file, so a reference that is found in neither, in
	// this order, does not exist.
	err = db.eachPacked(func(n string, v ID) bool {
		if n == name {
			id = v
		}
		return n != name
	})
	if err == nil && id.IsZero() {
		err = fmt.Errorf("reference %s: %w", name, ErrNoRef)
	}
	return id, "", err
}

func (db *DB) readLoose(name string) (id ID, target string, err error) {
	data, err := readRefFile(db.refPath(name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
		return id, "", fmt.Errorf("reference %s: %w", name, ErrNoRef)
	}
	if err != nil {
		return id, "", fmt.Errorf("reference %s: %w", name, err)
	}
	s := string(data)
	if t, ok := strings.CutPrefix(s, "ref:"); ok {
		return id, strings.TrimSpace(t), nil
	}
	if len(s) < 40 || strings.TrimSpace(s[40:]) != "" {
		return id, "", corruptf("reference %s: content %.60q", name, s)
	}
	if id, err = cold.ParseID(s[:40]); err != nil || id.IsZero() {
		return ID{}, "", corruptf("reference %s: content %.60q", name, s)
	}
	return id, "", nil
}

// readRefFile reads a loose reference. It does not follow a symbolic link, which could lead out of the repository.
func readRefFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, maxRefFile)
	n := 0
	for n < len(buf) {
		k, err := f.Read(buf[n:])
		n += k
		if err != nil || k == 0 {
			break
		}
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: syscall.EISDIR}
	}
	if !st.Mode().IsRegular() || n == len(buf) {
		return nil, corruptf("%s is no reference", path)
	}
	return buf[:n], nil
}

// eachPacked calls fn for every line of packed-refs until it returns false.
func (db *DB) eachPacked(fn func(name string, id ID) bool) error {
	path := filepath.Join(db.dir, "packed-refs")
	data, err := readSmall(path, maxPackedRefs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read packed references: %w", err)
	}
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		if len(line) == 0 || line[0] == '#' || line[0] == '^' {
			continue
		}
		name, id, err := parsePackedRef(line)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !fn(name, id) {
			return nil
		}
	}
	return nil
}

func parsePackedRef(line []byte) (string, ID, error) {
	if len(line) < 42 || line[40] != ' ' {
		return "", ID{}, corruptf("line %.60q", line)
	}
	id, err := cold.ParseID(string(line[:40]))
	if err != nil || id.IsZero() {
		return "", ID{}, corruptf("line %.60q", line)
	}
	return string(line[41:]), id, nil
}

// Refs returns the references whose names begin with prefix (such as "refs/heads/", or "" for all below refs/).
// Symbolic ones are resolved. Loose references that cannot be read are logged and left out.
func (db *DB) Refs(prefix string) (map[string]ID, error) {
	refs := map[string]ID{}
	loose := map[string]struct{}{}
	err := filepath.WalkDir(filepath.Join(db.dir, "refs"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gc removes empty directories
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(db.dir, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if e.IsDir() || !strings.HasPrefix(name, prefix) || checkRefName(name) != nil {
			return nil
		}
		id, err := db.Ref(name)
		switch {
		case err == nil:
			refs[name] = id
			loose[name] = struct{}{}
		case !errors.Is(err, ErrNoRef):
			db.log.WithError(err).Warn("a reference is left out")
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list references: %w", err)
	}
	err = db.eachPacked(func(name string, id ID) bool {
		if _, ok := loose[name]; !ok && strings.HasPrefix(name, prefix) && checkRefName(name) == nil {
			refs[name] = id
		}
		return true
	})
	return refs, err
}

// withoutPacked returns the content of packed-refs without the line of name and the peeled value that may follow it.
func withoutPacked(data []byte, name string) (kept []byte, dropped bool, err error) {
	kept = make([]byte, 0, len(data))
	skip := false
	for line := range bytes.Lines(data) {
		switch text := bytes.TrimSuffix(line, []byte{'\n'}); {
		case len(text) == 0 || text[0] == '#':
			skip = false
		case text[0] != '^':
			n, _, err := parsePackedRef(text)
			if err != nil {
				return nil, false, err
			}
			skip = n == name
			dropped = dropped || skip
		}
		if !skip {
			kept = append(kept, line...)
		}
	}
	return kept, dropped, nil
}
