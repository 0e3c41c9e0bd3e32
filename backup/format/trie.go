package format

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
	EntriesName = ".emberfs%entries"
	LinksName   = ".emberfs%links"
	HeaderName  = "header" // name of the header's blob in the root of a trie

	SplitOver  = 512 // a leaf with more lines becomes a node
	MergeUnder = 128 // a node with fewer lines below it becomes a leaf
	TrieFanout = 64
	MaxLevels  = 42 // 6 bits per level: a sha256 has no more

	MaxTreeBlob = 256 << 20 // maximum bytes of a git tree: some five million names
	MaxMetaBlob = 256 << 20 // maximum bytes of a leaf
)

// MetaDir is a directory of .emberfs/meta.
type MetaDir struct {
	Entries odb.TreeEntry      // .emberfs%entries; Mode is 0 if it is missing
	Header  cold.ID            // the header's blob if the entries are a trie; set by ReadHeader
	Links   odb.TreeEntry      // .emberfs%links; Mode is 0 if it is missing
	Subs    map[string]cold.ID // metadata of subdirectories, by stored name
}

// LoadMetaDir reads a directory of .emberfs/meta. Entries of the wrong type are problems.
func LoadMetaDir(db Objects, id cold.ID, p *Problems) (MetaDir, error) {
	m := MetaDir{Subs: make(map[string]cold.ID)}
	tree, err := ReadTree(db, id, p)
	if err != nil {
		return m, fmt.Errorf("metadata directory %s: %w", id, err)
	}
	for _, e := range tree {
		switch {
		case e.Name == EntriesName && (e.Mode == odb.ModeTree || e.Mode == odb.ModeFile):
			m.Entries = e
		case e.Name == LinksName && e.Mode == odb.ModeFile:
			m.Links = e
		case e.Name != EntriesName && e.Name != LinksName && e.Mode == odb.ModeTree:
			m.Subs[e.Name] = e.ID
		default:
			p.Add(fmt.Errorf("metadata directory %s: entry %q of mode %o does not belong here", id, e.Name, e.Mode))
		}
	}
	return m, nil
}

// ReadHeader returns the header, and either what follows it in the blob of entries or, if the entries are a trie, its
// nodes.
func (m *MetaDir) ReadHeader(db Objects) (h Header, rest []byte, nodes []odb.TreeEntry, err error) {
	var data []byte
	switch m.Entries.Mode {
	case odb.ModeFile:
		if data, err = db.Read(m.Entries.ID, odb.Blob, MaxMetaBlob); err != nil {
			return h, nil, nil, fmt.Errorf("%s: %w", EntriesName, err)
		}
	case odb.ModeTree:
		// It is strict, because nobody but EmberFS writes tries: one bad name makes the trie invalid.
		if nodes, err = ReadTree(db, m.Entries.ID, nil); err != nil {
			return h, nil, nil, fmt.Errorf("%s: %w", EntriesName, err)
		}
		i := slices.IndexFunc(nodes, func(e odb.TreeEntry) bool { return e.Name == HeaderName })
		if i < 0 || nodes[i].Mode != odb.ModeFile {
			return h, nil, nil, fmt.Errorf("%s: %w: a trie without header", EntriesName, cold.ErrCorrupt)
		}
		m.Header = nodes[i].ID
		if data, err = db.Read(m.Header, odb.Blob, MaxLine); err != nil {
			return h, nil, nil, fmt.Errorf("%s/%s: %w", EntriesName, HeaderName, err)
		}
		nodes = slices.Delete(nodes, i, i+1)
	default:
		return h, nil, nil, fmt.Errorf("%s: %w: is not there", EntriesName, cold.ErrCorrupt)
	}
	first, rest, _ := bytes.Cut(data, []byte{'\n'})
	if h, err = decodeHeader(first); err != nil {
		// The lines may still be useful, one by one; perhaps only the header is damaged.
		if m.Entries.Mode == odb.ModeFile {
			rest = data
		}
		return Header{}, rest, nodes, fmt.Errorf("%s: header: %w: %w", EntriesName, cold.ErrCorrupt, err)
	}
	return h, rest, nodes, nil
}

// scan collects all lines of a directory's metadata.
type scan struct {
	ctx   context.Context
	DB    Objects
	p     *Problems
	Lines []Line
	nodes int
	// Disorder says that lines were not sorted, so that the shards cannot be extended as they are.
	Disorder bool
}

// ReadLines reads all lines of a directory's metadata, sorted by name and without duplicates. Invalid lines are
// problems. If a trie cannot be read completely, it returns an error besides the lines that it found.
func ReadLines(ctx context.Context, db Objects, rest []byte, nodes []odb.TreeEntry, p *Problems) (*scan, error) {
	s := &scan{ctx: ctx, DB: db, p: p}
	s.leaf(rest, nil)
	err := s.node(nodes, nil)
	s.sort()
	s.Lines = slices.CompactFunc(s.Lines, func(a, b Line) bool {
		if a.Name == b.Name {
			p.Add(fmt.Errorf("entry %q: metadata comes twice, the first counts", a.Name))
		}
		return a.Name == b.Name
	})
	return s, err
}

// sort sorts the lines by name; lines with the same name keep their order. Because lines are big, it sorts their
// indexes first.
func (s *scan) sort() {
	if slices.IsSortedFunc(s.Lines, func(a, b Line) int { return strings.Compare(a.Name, b.Name) }) {
		return
	}
	order := make([]int, len(s.Lines))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(strings.Compare(s.Lines[a].Name, s.Lines[b].Name), cmp.Compare(a, b))
	})
	sorted := make([]Line, len(order))
	for i, at := range order {
		sorted[i] = s.Lines[at]
	}
	s.Lines = sorted
}

// node reads the children of a node of a trie. path are the digits above them.
func (s *scan) node(kids []odb.TreeEntry, path []byte) error {
	for _, e := range kids {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		digit, ok := parseDigit(e.Name)
		if !ok || len(path) >= MaxLevels {
			return fmt.Errorf("%s: %w: node %q at level %d", EntriesName, cold.ErrCorrupt, e.Name, len(path))
		}
		// A real trie has far more lines than nodes; a hostile one could have nodes without end.
		if s.nodes++; s.nodes > 1024+2*len(s.Lines) {
			return fmt.Errorf("%s: %w: more nodes than its lines account for", EntriesName, cold.ErrCorrupt)
		}
		below := append(slices.Clip(path), digit)
		switch e.Mode {
		case odb.ModeTree:
			more, err := ReadTree(s.DB, e.ID, nil)
			if err == nil {
				err = s.node(more, below)
			}
			if err != nil {
				return err
			}
		case odb.ModeFile:
			data, err := s.DB.Read(e.ID, odb.Blob, MaxMetaBlob)
			if err != nil {
				s.p.Add(fmt.Errorf("%s: node %x: %w", EntriesName, below, err))
				continue
			}
			s.leaf(data, below)
		default:
			return fmt.Errorf("%s: %w: node %x of mode %o", EntriesName, cold.ErrCorrupt, below, e.Mode)
		}
	}
	return nil
}

// leaf reads the lines of the blob at path.
func (s *scan) leaf(data []byte, path []byte) {
	first := len(s.Lines)
	for n := 1; len(data) > 0; n++ {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte{'\n'})
		l, err := DecodeLine(raw)
		if err == nil && !hasPath(l.Name, path) {
			err = fmt.Errorf("entry %q does not belong there", l.Name)
		}
		if err != nil {
			s.p.Add(fmt.Errorf("%s: node %x line %d: %w", EntriesName, path, n, err))
			continue
		}
		if len(s.Lines) > first && s.Lines[len(s.Lines)-1].Name >= l.Name {
			s.Disorder = true
		}
		s.Lines = append(s.Lines, l)
	}
}

// hasPath reports whether the digits of the name's hash begin with path.
func hasPath(name string, path []byte) bool {
	if len(path) == 0 {
		return true
	}
	hash := sha256.Sum256([]byte(name))
	for level, d := range path {
		if TrieDigit(&hash, level) != int(d) {
			return false
		}
	}
	return true
}

// TrieDigit returns the digit of a level: six bits of the hash, beginning with its first bit.
func TrieDigit(hash *[32]byte, level int) int {
	bit := 6 * level
	v := uint(hash[bit/8]) << 8
	if bit/8+1 < len(hash) {
		v |= uint(hash[bit/8+1])
	}
	return int(v >> (10 - bit%8) & (TrieFanout - 1))
}

const hexDigits = "0123456789abcdef"

// DigitName returns the stored name of a node.
func DigitName(d int) string { return string([]byte{hexDigits[d>>4], hexDigits[d&15]}) }

func parseDigit(s string) (byte, bool) {
	if len(s) != 2 {
		return 0, false
	}
	high, low := strings.IndexByte(hexDigits, s[0]), strings.IndexByte(hexDigits, s[1])
	if high < 0 || low < 0 || high<<4|low >= TrieFanout {
		return 0, false
	}
	return byte(high<<4 | low), true
}
