package backup

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	entriesName = ".emberfs%entries"
	linksName   = ".emberfs%links"
	headerName  = "header" // the header's blob in the root of a trie

	splitOver  = 512 // a leaf with more lines becomes a node
	mergeUnder = 128 // a node with fewer lines below it becomes a leaf
	trieFanout = 64
	maxLevels  = 42 // 6 bits a level: sha256 has no more

	maxTreeBlob = 256 << 20 // bytes of a git tree: some five million names
	maxMetaBlob = 256 << 20 // bytes of a leaf
)

// metaDir is one directory of .emberfs/meta.
type metaDir struct {
	entries odb.TreeEntry      // .emberfs%entries; Mode 0 where it is missing
	header  cold.ID            // the header's blob where the entries are a trie; known after readHeader
	links   odb.TreeEntry      // .emberfs%links; Mode 0 where it is missing
	subs    map[string]cold.ID // metadata of subdirectories, by stored name
}

// loadMetaDir reads a directory of .emberfs/meta. Entries of the wrong type are problems.
func loadMetaDir(db objects, id cold.ID, p *problems) (metaDir, error) {
	m := metaDir{subs: make(map[string]cold.ID)}
	tree, err := readTree(db, id, p)
	if err != nil {
		return m, fmt.Errorf("metadata directory %s: %w", id, err)
	}
	for _, e := range tree {
		switch {
		case e.Name == entriesName && (e.Mode == odb.ModeTree || e.Mode == odb.ModeFile):
			m.entries = e
		case e.Name == linksName && e.Mode == odb.ModeFile:
			m.links = e
		case e.Name != entriesName && e.Name != linksName && e.Mode == odb.ModeTree:
			m.subs[e.Name] = e.ID
		default:
			p.add(fmt.Errorf("metadata directory %s: entry %q of mode %o does not belong here", id, e.Name, e.Mode))
		}
	}
	return m, nil
}

// readHeader gives the header, what follows it in a blob of entries, and the nodes where the entries are a trie.
func (m *metaDir) readHeader(db objects) (h header, rest []byte, nodes []odb.TreeEntry, err error) {
	var data []byte
	switch m.entries.Mode {
	case odb.ModeFile:
		if data, err = db.Read(m.entries.ID, odb.Blob, maxMetaBlob); err != nil {
			return h, nil, nil, fmt.Errorf("%s: %w", entriesName, err)
		}
	case odb.ModeTree:
		// Without a problem list: a trie is ours alone, one bad name condemns it.
		if nodes, err = readTree(db, m.entries.ID, nil); err != nil {
			return h, nil, nil, fmt.Errorf("%s: %w", entriesName, err)
		}
		i := slices.IndexFunc(nodes, func(e odb.TreeEntry) bool { return e.Name == headerName })
		if i < 0 || nodes[i].Mode != odb.ModeFile {
			return h, nil, nil, fmt.Errorf("%s: %w: a trie without header", entriesName, cold.ErrCorrupt)
		}
		m.header = nodes[i].ID
		if data, err = db.Read(m.header, odb.Blob, maxLine); err != nil {
			return h, nil, nil, fmt.Errorf("%s/%s: %w", entriesName, headerName, err)
		}
		nodes = slices.Delete(nodes, i, i+1)
	default:
		return h, nil, nil, fmt.Errorf("%s: %w: is not there", entriesName, cold.ErrCorrupt)
	}
	first, rest, _ := bytes.Cut(data, []byte{'\n'})
	if h, err = decodeHeader(first); err != nil {
		// The lines are still of use, entry by entry; perhaps only the header's is gone.
		if m.entries.Mode == odb.ModeFile {
			rest = data
		}
		return header{}, rest, nodes, fmt.Errorf("%s: header: %w: %w", entriesName, cold.ErrCorrupt, err)
	}
	return h, rest, nodes, nil
}

// scan collects all lines of a directory's metadata.
type scan struct {
	ctx   context.Context
	db    objects
	p     *problems
	lines []line
	nodes int
	// disorder: lines were not sorted, so the shards cannot be extended as they are.
	disorder bool
}

// readLines reads all lines of m, sorted by name and without duplicates. Lines that are wrong are problems; a trie that
// cannot be read at all is an error beside the lines that were found.
func readLines(ctx context.Context, db objects, rest []byte, nodes []odb.TreeEntry, p *problems) (*scan, error) {
	s := &scan{ctx: ctx, db: db, p: p}
	s.leaf(rest, nil)
	err := s.node(nodes, nil)
	s.sort()
	s.lines = slices.CompactFunc(s.lines, func(a, b line) bool {
		if a.Name == b.Name {
			p.add(fmt.Errorf("entry %q: metadata comes twice, the first counts", a.Name))
		}
		return a.Name == b.Name
	})
	return s, err
}

// sort sorts the lines by name; of lines with one name the first stays first. Lines are big, so places are sorted.
func (s *scan) sort() {
	if slices.IsSortedFunc(s.lines, func(a, b line) int { return strings.Compare(a.Name, b.Name) }) {
		return
	}
	order := make([]int, len(s.lines))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(strings.Compare(s.lines[a].Name, s.lines[b].Name), cmp.Compare(a, b))
	})
	sorted := make([]line, len(order))
	for i, at := range order {
		sorted[i] = s.lines[at]
	}
	s.lines = sorted
}

// node reads the children of a trie's node; path holds the digits above them.
func (s *scan) node(kids []odb.TreeEntry, path []byte) error {
	for _, e := range kids {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		digit, ok := parseDigit(e.Name)
		if !ok || len(path) >= maxLevels {
			return fmt.Errorf("%s: %w: node %q at level %d", entriesName, cold.ErrCorrupt, e.Name, len(path))
		}
		// An honest trie has far more lines than nodes; a bomb has nodes without end.
		if s.nodes++; s.nodes > 1024+2*len(s.lines) {
			return fmt.Errorf("%s: %w: more nodes than its lines account for", entriesName, cold.ErrCorrupt)
		}
		below := append(slices.Clip(path), digit)
		switch e.Mode {
		case odb.ModeTree:
			more, err := readTree(s.db, e.ID, nil)
			if err == nil {
				err = s.node(more, below)
			}
			if err != nil {
				return err
			}
		case odb.ModeFile:
			data, err := s.db.Read(e.ID, odb.Blob, maxMetaBlob)
			if err != nil {
				s.p.add(fmt.Errorf("%s: node %x: %w", entriesName, below, err))
				continue
			}
			s.leaf(data, below)
		default:
			return fmt.Errorf("%s: %w: node %x of mode %o", entriesName, cold.ErrCorrupt, below, e.Mode)
		}
	}
	return nil
}

// leaf reads the lines of a blob that stands at path.
func (s *scan) leaf(data []byte, path []byte) {
	first := len(s.lines)
	for n := 1; len(data) > 0; n++ {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte{'\n'})
		l, err := decodeLine(raw)
		if err == nil && !hasPath(l.Name, path) {
			err = fmt.Errorf("entry %q does not belong there", l.Name)
		}
		if err != nil {
			s.p.add(fmt.Errorf("%s: node %x line %d: %w", entriesName, path, n, err))
			continue
		}
		if len(s.lines) > first && s.lines[len(s.lines)-1].Name >= l.Name {
			s.disorder = true
		}
		s.lines = append(s.lines, l)
	}
}

// hasPath says whether the digits of the name's hash begin with path.
func hasPath(name string, path []byte) bool {
	if len(path) == 0 {
		return true
	}
	hash := sha256.Sum256([]byte(name))
	for level, d := range path {
		if trieDigit(&hash, level) != int(d) {
			return false
		}
	}
	return true
}

// trieDigit is the digit of a level: six bits of the hash, from its first bit on.
func trieDigit(hash *[32]byte, level int) int {
	bit := 6 * level
	v := uint(hash[bit/8]) << 8
	if bit/8+1 < len(hash) {
		v |= uint(hash[bit/8+1])
	}
	return int(v >> (10 - bit%8) & (trieFanout - 1))
}

const hexDigits = "0123456789abcdef"

func digitName(d int) string { return string([]byte{hexDigits[d>>4], hexDigits[d&15]}) }

func parseDigit(s string) (byte, bool) {
	if len(s) != 2 {
		return 0, false
	}
	high, low := strings.IndexByte(hexDigits, s[0]), strings.IndexByte(hexDigits, s[1])
	if high < 0 || low < 0 || high<<4|low >= trieFanout {
		return 0, false
	}
	return byte(high<<4 | low), true
}
