package backup

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

// header is the first line of a directory's metadata.
type header struct {
	// tree is the user's tree that the lines describe.
	tree cold.ID
	// root holds the root directory's own attributes; nil in every other directory.
	root *cold.Entry
}

func encodeHeader(h header) []byte {
	b := append([]byte(`{"tree":"`), h.tree.String()...)
	b = append(b, '"')
	if h.root != nil {
		b = append(b, ',')
		b = appendAttrs(b, h.root)
	}
	return append(b, '}', '\n')
}

func decodeHeader(raw []byte) (header, error) {
	var h header
	var f fields
	e := cold.Entry{Kind: cold.KindDir}
	r := jsonReader{b: raw}
	err := r.object(func(key string) (err error) {
		if key == "tree" {
			f.tree = true
			h.tree, err = r.id()
			return err
		}
		if !f.tree {
			return errors.New("comes before tree")
		}
		return attr(&r, &f, &e, key)
	})
	if err == nil {
		err = r.end()
	}
	attrs := f.mode || f.uid || f.gid || f.mtime || len(e.Xattrs) > 0
	switch {
	case err != nil:
	case !f.tree:
		err = errors.New("no tree")
	case attrs && !(f.mode && f.uid && f.gid && f.mtime):
		err = errors.New("the root's attributes are not complete: mode, uid, gid and mtime are needed")
	case attrs:
		h.root = &e
		err = checkAttrs(&e)
	}
	return h, err
}

// Bounds of .emberfs%links: a path, longer than that of any directory that a commit takes (Linux takes 4,096 bytes at a time only, but
// programs go on from there), and the blob.
const (
	maxPath      = 256 << 10
	maxLinksBlob = 256 << 20
)

// encodeLinks writes the groups that span directories, a line a group, sorted.
func encodeLinks(links map[string][]string) ([]byte, error) {
	var b []byte
	for _, link := range slices.Sorted(maps.Keys(links)) {
		if link == "" || len(link) > maxLink || !utf8.ValidString(link) {
			return nil, fmt.Errorf("link group %q", link)
		}
		b = append(b, `{"link":`...)
		b = appendJSON(b, link)
		dirs := slices.Compact(slices.Sorted(slices.Values(links[link])))
		field := "dirs"
		for _, d := range dirs {
			if err := checkDirPath(d); err != nil {
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

// decodeLinks reads the groups; lines that are wrong come back as problems.
func decodeLinks(data []byte) (map[string][]string, []error) {
	links := make(map[string][]string)
	var problems problems
	for n := 1; len(data) > 0; n++ {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte{'\n'})
		link, dirs, err := decodeLink(raw)
		if _, twice := links[link]; err == nil && twice {
			err = fmt.Errorf("group %q comes twice", link)
		}
		if err != nil {
			problems.add(fmt.Errorf("%s line %d: %w", linksName, n, err))
			continue
		}
		links[link] = dirs
	}
	return links, problems.list
}

func decodeLink(raw []byte) (link string, dirs []string, err error) {
	r := jsonReader{b: raw}
	var isSet bool
	err = r.object(func(key string) (err error) {
		read := r.str
		switch key {
		case "link":
			link, err = r.str()
			return err
		case "dirs64":
			read = r.base64
		case "dirs":
		default:
			return errUnknownKey
		}
		if err := set(&isSet); err != nil {
			return err
		}
		return r.array(func() error {
			d, err := read()
			if err == nil {
				err = checkDirPath(d)
			}
			if n := len(dirs); err == nil && n > 0 && dirs[n-1] >= d {
				err = fmt.Errorf("directory %q is out of order", d)
			}
			dirs = append(dirs, d)
			return err
		})
	})
	if err == nil {
		err = r.end()
	}
	if err == nil && (link == "" || len(link) > maxLink) {
		err = fmt.Errorf("link group %q", link)
	}
	return link, dirs, err
}

// checkDirPath accepts "" for the root, and clean relative slash paths.
func checkDirPath(p string) error {
	if p == "" {
		return nil
	}
	if len(p) > maxPath {
		return fmt.Errorf("path of %d bytes is longer than %d", len(p), maxPath)
	}
	for name := range strings.SplitSeq(p, "/") {
		if err := checkName(name); err != nil {
			return fmt.Errorf("path %q: %w", p, err)
		}
	}
	return nil
}

// maxProblems bounds what a hostile repository can make us keep and log for one directory.
const maxProblems = 100

// problems collects what is wrong with single entries.
type problems struct {
	list    []error
	dropped int
}

func (p *problems) add(err error) {
	if len(p.list) < maxProblems {
		p.list = append(p.list, err)
		return
	}
	p.dropped++
	if p.dropped == 1 {
		p.list = append(p.list, errMoreProblems)
	}
}

var errMoreProblems = errors.New("more problems, not listed")
