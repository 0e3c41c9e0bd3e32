package tiers

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// memCold is a Cold in memory: content by hash, directories as listings.
type memCold struct {
	mu      sync.Mutex
	blobs   map[ID][]byte
	dirs    map[DirID][]Entry
	commits map[ID]*memSnapshot
	head    ID    // main's tip
	live    ID    // the live branch's; zero: none
	reads   int   // PutFile calls
	known   int   // those with a known base
	failTx  error // Commit fails with it

	remote   bool
	pushed   ID
	failPush error  // Push fails with it
	pushing  func() // is called by Push; nil: nothing to do

	maintain func(context.Context) error // nil: nothing to do
	counting func(context.Context) error // is called by Files; nil: nothing to do
	collect  func(context.Context, GCOptions) (GCReport, error)
	tooMuch  func(root *Root, put []Entry) error // is called by PutDir; nil: all fits
	skim     func(size int64) bool               // PutFile reads a file of this size without keeping it; nil: none
}

func newMemCold() *memCold {
	return &memCold{blobs: map[ID][]byte{}, dirs: map[DirID][]Entry{}, commits: map[ID]*memSnapshot{}}
}

type memSnapshot struct {
	c     *memCold
	info  CommitInfo
	root  Entry
	links map[string][]string

	opened []string
	rules  []byte
}

func (s *memSnapshot) Info() CommitInfo { return s.info }
func (s *memSnapshot) Root() Entry      { return s.root }
func (s *memSnapshot) LinkDirs(context.Context) (map[string][]string, error) {
	return s.links, nil
}
func (s *memSnapshot) Valid(context.Context, DirID) (bool, error) { return true, nil }
func (s *memSnapshot) Opened(context.Context) ([]string, error)   { return s.opened, nil }
func (s *memSnapshot) Rules(context.Context) ([]byte, error)      { return s.rules, nil }
func (s *memSnapshot) Files(ctx context.Context, _ int64) (files, names int64, err error) {
	if s.c.counting != nil {
		if err := s.c.counting(ctx); err != nil {
			return 0, 0, err
		}
	}
	var dir func(id DirID)
	dir = func(id DirID) {
		l, _ := s.ReadDir(ctx, id)
		for i := range l.Entries {
			if names++; l.Entries[i].Kind == KindDir {
				dir(l.Entries[i].Dir())
			} else {
				files++
			}
		}
	}
	dir(s.root.Dir())
	return files, names, nil
}
func (s *memSnapshot) ReadNames(ctx context.Context, id DirID) (Listing, error) {
	return s.ReadDir(ctx, id)
}

func (s *memSnapshot) Sizes(_ context.Context, _ DirID, names Listing) (Listing, error) {
	return names, nil
}

func (s *memSnapshot) ReadDir(_ context.Context, id DirID) (Listing, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	l, ok := s.c.dirs[id]
	if !ok {
		return Listing{}, fmt.Errorf("directory %s: %w", id.Tree, ErrMissing)
	}
	return Listing{Entries: slices.Clone(l)}, nil
}

func (c *memCold) VolumeID() string { return "mem" }
func (c *memCold) Head(context.Context) (Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head.IsZero() {
		return nil, nil
	}
	return c.commits[c.head], nil
}
func (c *memCold) Newest(ctx context.Context) (Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live.IsZero() {
		if c.head.IsZero() {
			return nil, nil
		}
		return c.commits[c.head], nil
	}
	s := *c.commits[c.live]
	s.info.Live = true
	return &s, nil
}
func (c *memCold) Follows(_ context.Context, newer, older ID) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for queue := []ID{newer}; len(queue) > 0; queue = queue[1:] {
		s := c.commits[queue[0]]
		if queue[0] == older {
			return true, nil
		}
		if s != nil {
			queue = append(append(queue, s.info.Absorbed...), s.info.Parent)
		}
	}
	return false, nil
}
func (c *memCold) Snapshot(_ context.Context, id ID) (Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.commits[id]; s != nil {
		return s, nil
	}
	return nil, ErrMissing
}

type memBlob struct{ *bytes.Reader }

func (b memBlob) Close() error    { return nil }
func (b memBlob) Size() int64     { return b.Reader.Size() }
func (b memBlob) SkipHole() int64 { return 0 }
func (b memBlob) Data(off int64) (Range, bool, error) {
	return Range{off, b.Size()}, off < b.Size(), nil
}

func (c *memCold) Open(_ context.Context, id ID, _ int64) (Blob, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.blobs[id]
	if !ok {
		return nil, fmt.Errorf("%s: %w", id, ErrMissing)
	}
	return memBlob{bytes.NewReader(b)}, nil
}
func (c *memCold) OpenAt(ctx context.Context, id ID, size int64) (BlobAt, error) {
	b, err := c.Open(ctx, id, size)
	if err != nil {
		return nil, err
	}
	return b.(memBlob), nil
}
func (c *memCold) Holds(_ context.Context, id ID, _ int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.blobs[id]; !ok {
		return fmt.Errorf("%s: %w", id, ErrMissing)
	}
	return nil
}
func (c *memCold) HasRemote() bool                    { return c.remote }
func (c *memCold) Fetch(context.Context) error        { return nil }
func (c *memCold) Peek(context.Context) (bool, error) { return false, nil }
func (c *memCold) Aside() []string                    { return nil }
func (c *memCold) Stats() ColdStats                   { return ColdStats{} }
func (c *memCold) Close() error                       { return nil }

func (c *memCold) Push(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pushing := c.pushing; pushing != nil {
		c.mu.Unlock()
		pushing()
		c.mu.Lock()
	}
	if c.failPush == nil && c.remote {
		if c.pushed = c.live; c.live.IsZero() {
			c.pushed = c.head
		}
	}
	return c.failPush
}
func (c *memCold) Pushed() ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pushed
}

func (c *memCold) GC(ctx context.Context, o GCOptions) (GCReport, error) { return c.collect(ctx, o) }
func (c *memCold) Maintain(ctx context.Context) error {
	if c.maintain == nil {
		return nil
	}
	return c.maintain(ctx)
}

type memTx struct {
	c    *memCold
	base Snapshot
	head ID // where the branches were
	live ID
	on   bool // it goes to the live branch
	mu   sync.Mutex
	new  map[ID][]byte
	lies map[ID]error // content that its Base did not tell the truth about
	dirs map[DirID][]Entry
	root Root
}

func (c *memCold) begin(base Snapshot, err error) (*memTx, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &memTx{c: c, base: base, head: c.head, live: c.live, new: map[ID][]byte{}, lies: map[ID]error{}, dirs: map[DirID][]Entry{}}, err
}
func (c *memCold) Begin(ctx context.Context) (Tx, error) { return c.begin(c.Newest(ctx)) }
func (c *memCold) BeginLive(ctx context.Context) (Tx, error) {
	t, err := c.begin(c.Newest(ctx))
	t.on = !t.head.IsZero()
	return t, err
}
func (c *memCold) BeginAt(ctx context.Context, id ID) (Tx, error) {
	t, err := c.begin(c.Snapshot(ctx, id))
	t.head, t.live = id, ID{}
	return t, err
}
func (t *memTx) Base() Snapshot { return t.base }

// checkBase finds bytes outside of what is said to have changed that differ from the base. t.mu is held.
func (t *memTx) checkBase(data []byte, base Base) error {
	if !base.Known {
		return nil
	}
	t.c.mu.Lock()
	old, ok := t.c.blobs[base.ID]
	t.c.known++
	t.c.mu.Unlock()
	if !ok {
		old, ok = t.new[base.ID]
	}
	if !ok {
		return fmt.Errorf("base %s is not there", base.ID)
	}
	off := int64(0)
	same := min(int64(len(old)), int64(len(data)))
	for _, r := range append(slices.Clone(base.Changed), Range{same, same}) {
		if r.Off > off && !bytes.Equal(old[off:min(r.Off, same)], data[off:min(r.Off, same)]) {
			return fmt.Errorf("bytes %d to %d differ from the base, which was not said", off, r.Off)
		}
		if off = max(off, r.End); off >= same {
			break
		}
	}
	return nil
}

func (t *memTx) PutFile(ctx context.Context, c Content, base Base) (ID, error) {
	if t.c.skim != nil && t.c.skim(c.Size()) {
		buf := make([]byte, 1<<20)
		for off := int64(0); off < c.Size(); off += int64(len(buf)) {
			if _, err := c.ReadAt(buf, off); err != nil || ctx.Err() != nil {
				return ID{}, errors.Join(err, ctx.Err())
			}
		}
	}
	data, err := io.ReadAll(io.NewSectionReader(c, 0, 1<<40))
	if err != nil {
		return ID{}, err
	}
	if int64(len(data)) != c.Size() {
		return ID{}, ErrSizeChanged
	}
	id := ID(sha1.Sum(data))
	t.mu.Lock()
	if err := t.checkBase(data, base); err == nil {
		t.lies[id] = nil // so it is true, whoever else says so
	} else if _, said := t.lies[id]; !said {
		t.lies[id] = err // a lie unless the caller finds out that the file changed meanwhile
	}
	t.new[id] = data
	t.mu.Unlock()
	t.c.mu.Lock()
	t.c.reads++
	t.c.mu.Unlock()
	return id, nil
}
func (t *memTx) PutSymlink(_ context.Context, target string, _ ID) (ID, error) {
	return ID(sha1.Sum([]byte(target))), nil
}
func (t *memTx) PutDir(_ context.Context, base DirID, full bool, root *Root, put []Entry, del []string) (DirID, error) {
	if t.c.tooMuch != nil {
		if err := t.c.tooMuch(root, put); err != nil {
			return DirID{}, err
		}
	}
	all := map[string]Entry{}
	if !full {
		old, ok := t.dirs[base]
		if !ok {
			t.c.mu.Lock()
			old, ok = t.c.dirs[base]
			t.c.mu.Unlock()
		}
		if !ok {
			return DirID{}, fmt.Errorf("base of a directory: %w", ErrMissing)
		}
		for _, e := range old {
			all[e.Name] = e
		}
	}
	for _, name := range del {
		delete(all, name)
	}
	for _, e := range put {
		if err := t.lies[e.ID]; err != nil {
			return DirID{}, fmt.Errorf("%q: %w", e.Name, err)
		}
		e.Lost = false // not part of a commit
		all[e.Name] = e
	}
	list := slices.SortedFunc(maps.Values(all), func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	tree, meta := sha1.New(), sha1.New()
	for _, e := range list {
		fmt.Fprintf(tree, "%q %d %s\n", e.Name, e.Kind, e.ID)
		if e.Other != nil {
			fmt.Fprintf(tree, "%+v\n", *e.Other)
			e.Other = nil
		}
		fmt.Fprintf(meta, "%+v\n", e)
	}
	if root != nil {
		fmt.Fprintf(meta, "%+v\n", *root)
	}
	id := DirID{ID(tree.Sum(nil)), ID(meta.Sum(nil))}
	t.dirs[id] = list
	if root != nil {
		t.root = *root
		t.root.Name, t.root.Kind, t.root.ID, t.root.Meta = "", KindDir, id.Tree, id.Meta
	}
	return id, nil
}
func (t *memTx) Commit(_ context.Context, o CommitOptions) (ID, error) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.c.failTx != nil {
		return ID{}, t.c.failTx
	}
	if t.c.head != t.head || t.c.live != t.live {
		return ID{}, ErrRefMoved
	}
	maps.Copy(t.c.blobs, t.new)
	t.keep(o.Root)
	var text []byte
	if o.Rules != nil {
		text = *o.Rules
	} else if t.base != nil {
		text, _ = t.base.Rules(context.Background())
	}
	info := CommitInfo{Parent: t.head, Time: time.Now(), Reason: o.Reason, Machine: o.Machine}
	root, links := t.root.Entry, t.root.Links
	if base, ok := t.base.(*memSnapshot); ok && root.Kind == 0 && base.info.Live && base.root.Dir() == o.Root {
		root, links = base.root, base.links // main only catches up
	}
	if root.Dir() != o.Root {
		return ID{}, errors.New("the root was not put")
	}
	if t.on && !t.live.IsZero() {
		info.Parent = t.live
	}
	if !t.on && !t.live.IsZero() {
		info.Absorbed = []ID{t.live}
	}
	info.ID = ID(sha1.Sum(fmt.Appendf(nil, "%v %v %d", o.Root, info.Parent, len(t.c.commits))))
	t.c.commits[info.ID] = &memSnapshot{c: t.c, root: root, links: links, info: info, rules: text}
	if t.on {
		t.c.live = info.ID
	} else {
		t.c.head, t.c.live = info.ID, ID{}
	}
	return info.ID, nil
}

// keep takes what a directory reaches into cold: nothing else outlives a commit.
func (t *memTx) keep(id DirID) {
	list, ok := t.dirs[id]
	if !ok {
		return
	}
	t.c.dirs[id] = list
	for i := range list {
		if list[i].Kind == KindDir {
			t.keep(list[i].Dir())
		}
	}
}
func (t *memTx) Abort() {}
