package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/backup/log"
	"emberfs/tiers/cold"
)

// diffPrinter prints changes as they are found.
type diffPrinter struct {
	ctx      context.Context
	w        world
	from, to log.Side
	list     jsonList
	failed   []error // contents that could not be read

	paths, added, removed int // for the summary of --stat
}

// unreadable is how many contents that cannot be read are listed; further ones are not mentioned.
const unreadable = 100

func (p *diffPrinter) fail(at string, err error) error {
	if cerr := p.ctx.Err(); cerr != nil {
		return cerr
	}
	if len(p.failed) < unreadable {
		p.failed = append(p.failed, fmt.Errorf("%q: %w", at, err))
	}
	return nil
}

func kindOf(e *cold.Entry) cold.Kind {
	if e == nil {
		return 0
	}
	return e.Kind
}

// shownPath returns a path as it is printed: a directory's ends in a slash, the root is "./".
func shownPath(c *log.Change) string {
	e := c.New
	if e == nil {
		e = c.Old
	}
	switch {
	case c.Path == "":
		return "./"
	case e.Kind == cold.KindDir:
		return quotePath(c.Path + "/")
	}
	return quotePath(c.Path)
}

// name prints a change with --name-only.
func (p *diffPrinter) name(c log.Change) error {
	_, err := fmt.Fprintf(p.w.out, "%c\t%s\n", c.Status, shownPath(&c))
	return err
}

// gitMode returns the mode that a stock client sees, or 0 if it does not see the entry.
func gitMode(e *cold.Entry) uint32 {
	switch {
	case e == nil:
		return 0
	case e.Kind == cold.KindSymlink:
		return 0o120000
	case e.Kind == cold.KindFile && e.Mode&0o100 != 0:
		return 0o100755
	case e.Kind == cold.KindFile:
		return 0o100644
	}
	return 0
}

// patch prints a change as git diff would, followed by lines beginning with "= " for what git does not show.
func (p *diffPrinter) patch(c log.Change) error {
	old, now := c.Old, c.New
	if old != nil && now != nil && gitMode(old)&unix.S_IFMT != gitMode(now)&unix.S_IFMT {
		// Like git, print a change of type as two patches.
		if err := p.patchOf(c.Path, old, nil); err != nil {
			return err
		}
		if err := p.patchOf(c.Path, nil, now); err != nil {
			return err
		}
	} else if err := p.patchOf(c.Path, old, now); err != nil {
		return err
	}
	text := p.beside(&c)
	if text == "" {
		return nil
	}
	_, err := fmt.Fprintf(p.w.out, "= %s: %s\n", shownPath(&c), text)
	return err
}

// patchOf prints the patch of one path, or nothing if git would see no difference.
func (p *diffPrinter) patchOf(path string, old, now *cold.Entry) error {
	m, n := gitMode(old), gitMode(now)
	if m == 0 && n == 0 {
		return nil
	}
	same := old != nil && now != nil && sameContent(old, now)
	if same && m == n {
		return nil
	}
	var b strings.Builder
	a, z := quotePath("a/"+path), quotePath("b/"+path)
	fmt.Fprintf(&b, "diff --git %s %s\n", a, z)
	switch {
	case m == 0:
		fmt.Fprintf(&b, "new file mode %06o\n", n)
		a = "/dev/null"
	case n == 0:
		fmt.Fprintf(&b, "deleted file mode %06o\n", m)
		z = "/dev/null"
	case m != n:
		fmt.Fprintf(&b, "old mode %06o\nnew mode %06o\n", m, n)
	}
	if !same {
		body, err := p.body(path, a, z, old, now)
		if err != nil {
			return p.fail(path, err)
		}
		b.WriteString(body)
	}
	_, err := io.WriteString(p.w.out, b.String())
	return err
}

// sameContent reports whether two entries are known to have the same content, without reading it.
func sameContent(a, b *cold.Entry) bool {
	if a.Kind == cold.KindSymlink {
		return a.Target == b.Target
	}
	return a.Size == b.Size && a.ID == b.ID && !a.ID.IsZero()
}

// body returns the part of a patch that shows the contents.
func (p *diffPrinter) body(path, a, z string, old, now *cold.Entry) (string, error) {
	x, y, binary, err := p.texts(path, old, now)
	switch {
	case err != nil:
		return "", err
	case binary:
		return fmt.Sprintf("Binary files %s and %s differ\n", a, z), nil
	}
	// git adds a tab after a name with spaces, to mark its end.
	label := func(name string) string {
		if strings.Contains(name, " ") {
			return name + "\t"
		}
		return name
	}
	return unified(label(a), label(z), x, y)
}

// texts reads both sides. binary says that at least one of them is not text, or too big to be compared as text.
func (p *diffPrinter) texts(path string, old, now *cold.Entry) (x, y string, binary bool, err error) {
	for _, e := range []*cold.Entry{old, now} {
		if e != nil && e.Size > maxText {
			return "", "", true, nil
		}
	}
	a, err := p.text(p.from, path, old)
	if err != nil {
		return "", "", false, err
	}
	b, err := p.text(p.to, path, now)
	if err != nil {
		return "", "", false, err
	}
	return string(a), string(b), isBinary(a) || isBinary(b), nil
}

func (p *diffPrinter) text(side log.Side, path string, e *cold.Entry) (_ []byte, err error) {
	switch kindOf(e) {
	case cold.KindSymlink:
		return []byte(e.Target), nil
	case cold.KindFile:
	default:
		return nil, nil
	}
	r, err := side.Open(p.ctx, path, e)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err == nil && len(data) > maxText {
		err = errors.New("it grew while it was read")
	}
	return data, err
}

// beside returns what git's patch does not show of a change, or "" if that is nothing.
func (p *diffPrinter) beside(c *log.Change) string {
	switch {
	case c.Old == nil && gitMode(c.New) == 0:
		return "new " + kindText(c.New)
	case c.New == nil && gitMode(c.Old) == 0:
		return "deleted " + kindText(c.Old)
	case c.Old == nil || c.New == nil:
		return ""
	}
	var out []string
	for _, f := range c.Fields {
		// New content always comes with a new mtime, so that is not mentioned.
		if f == "mtime" && c.Status != log.Metadata {
			continue
		}
		if f == "mode" && c.Old.Mode^c.New.Mode == 0o111 && gitMode(c.Old) != gitMode(c.New) &&
			c.Status != log.Retyped {
			continue // the patch shows it
		}
		if text := fieldText(f, c.Old, c.New); text != "" {
			out = append(out, text)
		}
	}
	return strings.Join(out, ", ")
}

func kindText(e *cold.Entry) string {
	switch e.Kind {
	case cold.KindDir:
		return "directory"
	case cold.KindChar, cold.KindBlock:
		return fmt.Sprintf("%s device %s", e.Kind, rdevText(e))
	}
	return e.Kind.String()
}

func rdevText(e *cold.Entry) string {
	return fmt.Sprintf("%d:%d", unix.Major(e.Rdev), unix.Minor(e.Rdev))
}

// fieldText describes one difference, or returns "" if the patch shows it.
func fieldText(field string, a, b *cold.Entry) string {
	switch field {
	case "type":
		return kindText(a) + " -> " + kindText(b)
	case "rdev":
		return "device " + rdevText(a) + " -> " + rdevText(b)
	case "mode":
		return fmt.Sprintf("mode %04o -> %04o", a.Mode, b.Mode)
	case "owner":
		return fmt.Sprintf("owner %d:%d -> %d:%d", a.UID, a.GID, b.UID, b.GID)
	case "mtime":
		return "mtime " + mtimeText(a.Mtime) + " -> " + mtimeText(b.Mtime)
	case "flags":
		return fmt.Sprintf("flags of chattr %#x -> %#x", a.Flags, b.Flags)
	case "xattrs":
		return xattrText(a.Xattrs, b.Xattrs)
	case "link":
		switch {
		case a.Link == "":
			return "hard-linked"
		case b.Link == "":
			return "no longer hard-linked"
		}
		return "hard-linked to other names"
	}
	return ""
}

func mtimeText(t cold.Time) string {
	return time.Unix(t.Sec, int64(t.Nsec)).UTC().Format(time.RFC3339Nano)
}

// xattrText lists the attributes that were added (+), removed (-) or changed (~).
func xattrText(a, b []cold.Xattr) string {
	value := func(list []cold.Xattr, name string) ([]byte, bool) {
		for _, x := range list {
			if x.Name == name {
				return x.Value, true
			}
		}
		return nil, false
	}
	var out []string
	for _, x := range a {
		if now, ok := value(b, x.Name); !ok {
			out = append(out, "-"+oneLine(x.Name))
		} else if !bytes.Equal(now, x.Value) {
			out = append(out, "~"+oneLine(x.Name))
		}
	}
	for _, x := range b {
		if _, ok := value(a, x.Name); !ok {
			out = append(out, "+"+oneLine(x.Name))
		}
	}
	return "xattrs " + strings.Join(out, " ")
}

// stat prints a change with --stat.
func (p *diffPrinter) stat(c log.Change) error {
	p.paths++
	_, err := fmt.Fprintf(p.w.out, " %c %s", c.Status, shownPath(&c))
	if err != nil {
		return err
	}
	text := p.beside(&c)
	shows := kindOf(c.Old) == cold.KindFile || kindOf(c.New) == cold.KindFile || slices.Contains(c.Fields, "target")
	if c.Status != log.Metadata && shows {
		how, err := p.amount(&c)
		if err != nil {
			if err := p.fail(c.Path, err); err != nil {
				return err
			}
			how = "unreadable"
		}
		text = strings.TrimSuffix(how+", "+text, ", ")
	}
	if text != "" {
		text = " | " + text
	}
	_, err = fmt.Fprintln(p.w.out, text)
	return err
}

// amount returns how much of a content changed.
func (p *diffPrinter) amount(c *log.Change) (string, error) {
	x, y, binary, err := p.texts(c.Path, c.Old, c.New)
	if err != nil {
		return "", err
	}
	if binary {
		bytes := func(e *cold.Entry) int64 {
			if e == nil {
				return 0
			}
			return e.Size
		}
		return fmt.Sprintf("Bin %d -> %d bytes", bytes(c.Old), bytes(c.New)), nil
	}
	added, removed := changedLines(x, y)
	p.added += added
	p.removed += removed
	return fmt.Sprintf("+%d -%d", added, removed), nil
}

func (p *diffPrinter) summary() error {
	if p.paths == 0 {
		return nil
	}
	_, err := fmt.Fprintf(p.w.out, " %s changed, %s(+), %s(-)\n", count(int64(p.paths), "path"),
		count(int64(p.added), "insertion"),
		count(int64(p.removed), "deletion"))
	return err
}
