package format

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"emberfs/tiers/cold"
)

// Header is the first line of a directory's metadata.
type Header struct {
	// Tree is the user's tree that the lines describe.
	Tree cold.ID
	// Root holds the root directory's own attributes; it is nil for every other directory.
	Root *cold.Entry
}

// EncodeHeader returns the line of a header, including its newline.
func EncodeHeader(h Header) []byte {
	b := append([]byte(`{"tree":"`), h.Tree.String()...)
	b = append(b, '"')
	if h.Root != nil {
		b = append(b, ',')
		b = appendAttrs(b, h.Root)
	}
	return append(b, '}', '\n')
}

func decodeHeader(raw []byte) (Header, error) {
	var h Header
	var f fields
	e := cold.Entry{Kind: cold.KindDir}
	r := JSONReader{B: raw}
	err := r.Object(func(key string) (err error) {
		if key == "tree" {
			f.tree = true
			h.Tree, err = r.ID()
			return err
		}
		if !f.tree {
			return errors.New("comes before tree")
		}
		return attr(&r, &f, &e, key)
	})
	if err == nil {
		err = r.End()
	}
	attrs := f.mode || f.uid || f.gid || f.mtime || len(e.Xattrs) > 0
	switch {
	case err != nil:
	case !f.tree:
		err = errors.New("no tree")
	case attrs && !(f.mode && f.uid && f.gid && f.mtime):
		err = errors.New("the root's attributes are not complete: mode, uid, gid and mtime are needed")
	case attrs:
		h.Root = &e
		err = CheckAttrs(&e)
	}
	return h, err
}

// Limits of .emberfs%links: for a path (longer than that of any directory that a commit takes; Linux accepts only 4,096
// bytes at a time, but programs can go on from there), and for the blob.
const (
	maxPath      = 256 << 10
	MaxLinksBlob = 256 << 20
)

// EncodeLinks encodes the hard-link groups that span directories, one line per group, sorted.
func EncodeLinks(links map[string][]string) ([]byte, error) {
	var b []byte
	for _, link := range slices.Sorted(maps.Keys(links)) {
		if link == "" || len(link) > MaxLink || !utf8.ValidString(link) {
			return nil, fmt.Errorf("link group %q", link)
		}
		b = append(b, `{"link":`...)
		b = appendJSON(b, link)
		dirs := slices.Compact(slices.Sorted(slices.Values(links[link])))
		field := "dirs"
		for _, d := range dirs {
			if err := CheckDirPath(d); err != nil {
				return nil, fmt.Errorf("link group %q: %w", link, err)
			}
			if !utf8.ValidString(d) {
				field = "dirs64"
			}
		}
		b = append(b, `,"`+field+`":[`...)
		for i, d := range dirs {
			if i > 0 {
				b = append(b, ',')
			}
			if field == "dirs" {
				b = appendJSON(b, d)
			} else {
				b = appendBase64(b, d)
			}
		}
		b = append(b, ']', '}', '\n')
	}
	return b, nil
}

// DecodeLinks decodes the groups. Invalid lines are returned as problems.
func DecodeLinks(data []byte) (map[string][]string, []error) {
	links := make(map[string][]string)
	var problems Problems
	for n := 1; len(data) > 0; n++ {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte{'\n'})
		link, dirs, err := decodeLink(raw)
		if _, twice := links[link]; err == nil && twice {
			err = fmt.Errorf("group %q comes twice", link)
		}
		if err != nil {
			problems.Add(fmt.Errorf("%s line %d: %w", LinksName, n, err))
			continue
		}
		links[link] = dirs
	}
	return links, problems.List
}

func decodeLink(raw []byte) (link string, dirs []string, err error) {
	r := JSONReader{B: raw}
	var isSet bool
	err = r.Object(func(key string) (err error) {
		read := r.Str
		switch key {
		case "link":
			link, err = r.Str()
			return err
		case "dirs64":
			read = r.Base64
		case "dirs":
		default:
			return ErrUnknownKey
		}
		if err := Set(&isSet); err != nil {
			return err
		}
		return r.array(func() error {
			d, err := read()
			if err == nil {
				err = CheckDirPath(d)
			}
			if n := len(dirs); err == nil && n > 0 && dirs[n-1] >= d {
				err = fmt.Errorf("directory %q is out of order", d)
			}
			dirs = append(dirs, d)
			return err
		})
	})
	if err == nil {
		err = r.End()
	}
	if err == nil && (link == "" || len(link) > MaxLink) {
		err = fmt.Errorf("link group %q", link)
	}
	return link, dirs, err
}

// CheckDirPath accepts "" for the root, and clean relative slash paths.
func CheckDirPath(p string) error {
	if p == "" {
		return nil
	}
	if len(p) > maxPath {
		return fmt.Errorf("path of %d bytes is longer than %d", len(p), maxPath)
	}
	for name := range strings.SplitSeq(p, "/") {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("path %q: %w", p, err)
		}
	}
	return nil
}

// MaxProblems is how many problems of one directory a hostile repository can make us keep and log.
const MaxProblems = 100

// Problems collects what is wrong with single entries.
type Problems struct {
	List    []error
	dropped int
}

// Add adds a problem. Over MaxProblems it only counts them.
func (p *Problems) Add(err error) {
	if len(p.List) < MaxProblems {
		p.List = append(p.List, err)
		return
	}
	p.dropped++
	if p.dropped == 1 {
		p.List = append(p.List, errMoreProblems)
	}
}

var errMoreProblems = errors.New("more problems, not listed")
