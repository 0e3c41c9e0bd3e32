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

	"emberfs/tiers/cold"
)

// memCold is a Cold in memory: content by hash, directories as listings.
type memCold struct {
	mu      sync.Mutex
	blobs   map[cold.ID][]byte
	dirs    map[cold.DirID][]cold.Entry
	commits map[cold.ID]*memSnapshot
	head    cold.ID // main's tip
	live    cold.ID // the live branch's; zero: none
	reads   int     // PutFile calls
	known   int     // PutFile calls with a known base
	failTx  error   // Commit fails with it

	remote   bool
	pushed   cold.ID
	failPush error                                         // Push fails with it
	pushing  func()                                        // is called by Push; nil: nothing to do
	fetching func(context.Context) (moved bool, err error) // is called by Fetch and Peek; nil: nothing to do
	contact  time.Time

	maintain func(context.Context) error // nil: nothing to do
	counting func(context.Context) error // is called by Files; nil: nothing to do
	collect  func(context.Context, cold.GCOptions) (cold.GCReport, error)
	tooMuch  func(root *cold.Root, put []cold.Entry) error // is called by PutDir; nil: all fits
	// Says of which sizes PutFile first reads a file without keeping anything; nil: of none.
	skim func(size int64) bool
}

func newMemCold() *memCold {
	return &memCold{blobs: map[cold.ID][]byte{}, dirs: map[cold.DirID][]cold.Entry{},
		commits: map[cold.ID]*memSnapshot{}}
}

type memSnapshot struct {
	c     *memCold
	info  cold.CommitInfo
	root  cold.Entry
	links map[string][]string

	opened []string
	rules  []byte
}

func (s *memSnapshot) Info() cold.CommitInfo { return s.info }
func (s *memSnapshot) Root() cold.Entry      { return s.root }
func (s *memSnapshot) LinkDirs(context.Context) (map[string][]string, error) {
	return s.links, nil
}
func (s *memSnapshot) Valid(context.Context, cold.DirID) (bool, error) { return true, nil }
func (s *memSnapshot) Opened(context.Context) ([]string, error)        { return s.opened, nil }
func (s *memSnapshot) Rules(context.Context) ([]byte, error)           { return s.rules, nil }
func (s *memSnapshot) Files(ctx context.Context, _ int64) (files, names int64, err error) {
	if s.c.counting != nil {
		if err := s.c.counting(ctx); err != nil {
			return 0, 0, err
		}
	}
	var dir func(id cold.DirID)
	dir = func(id cold.DirID) {
		l, _ := s.ReadDir(ctx, id)
		for i := range l.Entries {
			if names++; l.Entries[i].Kind == cold.KindDir {
				dir(l.Entries[i].Dir())
			} else {
				files++
			}
		}
	}
	dir(s.root.Dir())
	return files, names, nil
}
func (s *memSnapshot) ReadNames(ctx context.Context, id cold.DirID) (cold.Listing, error) {
	return s.ReadDir(ctx, id)
}

func (s *memSnapshot) Sizes(_ context.Context, _ cold.DirID, names cold.Listing) (cold.Listing, error) {
	return names, nil
}

func (s *memSnapshot) ReadDir(_ context.Context, id cold.DirID) (cold.Listing, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	l, ok := s.c.dirs[id]
	if !ok {
		return cold.Listing{}, fmt.Errorf("directory %s: %w", id.Tree, cold.ErrMissing)
	}
	return cold.Listing{Entries: slices.Clone(l)}, nil
}

func (c *memCold) VolumeID() string { return "mem" }
func (c *memCold) Head(context.Context) (cold.Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head.IsZero() {
		return nil, nil
	}
	return c.commits[c.head], nil
}
func (c *memCold) Newest(ctx context.Context) (cold.Snapshot, error) {
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
func (c *memCold) Follows(_ context.Context, newer, older cold.ID) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for queue := []cold.ID{newer}; len(queue) > 0; queue = queue[1:] {
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
func (c *memCold) Snapshot(_ context.Context, id cold.ID) (cold.Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.commits[id]; s != nil {
		return s, nil
	}
	return nil, cold.ErrMissing
}

type memBlob struct{ *bytes.Reader }

func (b memBlob) Close() error    { return nil }
func (b memBlob) Size() int64     { return b.Reader.Size() }
func (b memBlob) SkipHole() int64 { return 0 }
func (b memBlob) Data(off int64) (cold.Range, bool, error) {
	return cold.Range{Off: off, End: b.Size()}, off < b.Size(), nil
}

func (c *memCold) Open(_ context.Context, id cold.ID, _ int64) (cold.Blob, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.blobs[id]
	if !ok {
		return nil, fmt.Errorf("%s: %w", id, cold.ErrMissing)
	}
	return memBlob{bytes.NewReader(b)}, nil
}
func (c *memCold) OpenAt(ctx context.Context, id cold.ID, size int64) (cold.BlobAt, error) {
	b, err := c.Open(ctx, id, size)
	if err != nil {
		return nil, err
	}
	return b.(memBlob), nil
}
func (c *memCold) Holds(_ context.Context, id cold.ID, _ int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.blobs[id]; !ok {
		return fmt.Errorf("%s: %w", id, cold.ErrMissing)
	}
	return nil
}
func (c *memCold) HasRemote() bool { return c.remote }
func (c *memCold) Peek(ctx context.Context) (bool, error) {
	c.mu.Lock()
	fetching := c.fetching
	c.mu.Unlock()
	if fetching == nil {
		return false, nil
	}
	return fetching(ctx)
}

func (c *memCold) Fetch(ctx context.Context) error {
	_, err := c.Peek(ctx)
	return err
}

func (c *memCold) Contact() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.contact
}

func (c *memCold) Aside() []string       { return nil }
func (c *memCold) Stats() cold.ColdStats { return cold.ColdStats{} }
func (c *memCold) Close() error          { return nil }

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
func (c *memCold) Pushed() cold.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pushed
}

func (c *memCold) GC(ctx context.Context, o cold.GCOptions) (cold.GCReport, error) {
	return c.collect(ctx, o)
}
func (c *memCold) Maintain(ctx context.Context) error {
	if c.maintain == nil {
		return nil
	}
	return c.maintain(ctx)
}

type memTx struct {
	c    *memCold
	base cold.Snapshot
	head cold.ID // tip of main when the transaction began
	live cold.ID
	on   bool // the commit goes to the live branch
	mu   sync.Mutex
	new  map[cold.ID][]byte
	lies map[cold.ID]error // content whose Base was wrong about what had changed; nil: it was right
	dirs map[cold.DirID][]cold.Entry
	root cold.Root
}

func (c *memCold) begin(base cold.Snapshot, err error) (*memTx, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &memTx{c: c, base: base, head: c.head, live: c.live, new: map[cold.ID][]byte{}, lies: map[cold.ID]error{},
		dirs: map[cold.DirID][]cold.Entry{}}, err
}
func (c *memCold) Begin(ctx context.Context) (cold.Tx, error) { return c.begin(c.Newest(ctx)) }
func (c *memCold) BeginLive(ctx context.Context) (cold.Tx, error) {
	t, err := c.begin(c.Newest(ctx))
	t.on = !t.head.IsZero()
	return t, err
}
func (c *memCold) BeginAt(ctx context.Context, id cold.ID) (cold.Tx, error) {
	t, err := c.begin(c.Snapshot(ctx, id))
	t.head, t.live = id, cold.ID{}
	return t, err
}
func (t *memTx) Base() cold.Snapshot { return t.base }

// checkBase returns an error if data differs from the base outside of the ranges that base says have changed. t.mu is
// held.
func (t *memTx) checkBase(data []byte, base cold.Base) error {
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
	for _, r := range append(slices.Clone(base.Changed), cold.Range{Off: same, End: same}) {
		if r.Off > off && !bytes.Equal(old[off:min(r.Off, same)], data[off:min(r.Off, same)]) {
			return fmt.Errorf("bytes %d to %d differ from the base, which was not said", off, r.Off)
		}
		if off = max(off, r.End); off >= same {
			break
		}
	}
	return nil
}

func (t *memTx) PutFile(ctx context.Context, c cold.Content, base cold.Base) (cold.ID, error) {
	if t.c.skim != nil && t.c.skim(c.Size()) {
		buf := make([]byte, 1<<20)
		for off := int64(0); off < c.Size(); off += int64(len(buf)) {
			if _, err := c.ReadAt(buf, off); err != nil || ctx.Err() != nil {
				return cold.ID{}, errors.Join(err, ctx.Err())
			}
		}
	}
	data, err := io.ReadAll(io.NewSectionReader(c, 0, 1<<40))
	if err != nil {
		return cold.ID{}, err
	}
	if int64(len(data)) != c.Size() {
		return cold.ID{}, cold.ErrSizeChanged
	}
	id := cold.ID(sha1.Sum(data))
	t.mu.Lock()
	if err := t.checkBase(data, base); err == nil {
		t.lies[id] = nil // it is right once, so no other Base of it counts as wrong
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
func (t *memTx) PutSymlink(_ context.Context, target string, _ cold.ID) (cold.ID, error) {
	return cold.ID(sha1.Sum([]byte(target))), nil
}
func (t *memTx) PutDir(_ context.Context, base cold.DirID, full bool, root *cold.Root, put []cold.Entry, del []string) (
	cold.DirID, error) {
	if t.c.tooMuch != nil {
		if err := t.c.tooMuch(root, put); err != nil {
			return cold.DirID{}, err
		}
	}
	all := map[string]cold.Entry{}
	if !full {
		old, ok := t.dirs[base]
		if !ok {
			t.c.mu.Lock()
			old, ok = t.c.dirs[base]
			t.c.mu.Unlock()
		}
		if !ok {
			return cold.DirID{}, fmt.Errorf("base of a directory: %w", cold.ErrMissing)
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
			return cold.DirID{}, fmt.Errorf("%q: %w", e.Name, err)
		}
		e.Lost = false // not part of a commit
		all[e.Name] = e
	}
	list := slices.SortedFunc(maps.Values(all), func(a, b cold.Entry) int { return strings.Compare(a.Name, b.Name) })
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
	id := cold.DirID{Tree: cold.ID(tree.Sum(nil)), Meta: cold.ID(meta.Sum(nil))}
	t.dirs[id] = list
	if root != nil {
		t.root = *root
		t.root.Name, t.root.Kind, t.root.ID, t.root.Meta = "", cold.KindDir, id.Tree, id.Meta
	}
	return id, nil
}
func (t *memTx) Commit(_ context.Context, o cold.CommitOptions) (cold.ID, error) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.c.failTx != nil {
		return cold.ID{}, t.c.failTx
	}
	if t.c.head != t.head || t.c.live != t.live {
		return cold.ID{}, cold.ErrRefMoved
	}
	maps.Copy(t.c.blobs, t.new)
	t.keep(o.Root)
	var text []byte
	if o.Rules != nil {
		text = *o.Rules
	} else if t.base != nil {
		text, _ = t.base.Rules(context.Background())
	}
	info := cold.CommitInfo{Parent: t.head, Time: time.Now(), Made: time.Now(), Reason: o.Reason, Machine: o.Machine}
	root, links := t.root.Entry, t.root.Links
	if base, ok := t.base.(*memSnapshot); ok && root.Kind == 0 && base.info.Live && base.root.Dir() == o.Root {
		root, links = base.root, base.links // main only catches up
	}
	if root.Dir() != o.Root {
		return cold.ID{}, errors.New("the root was not put")
	}
	if t.on && !t.live.IsZero() {
		info.Parent = t.live
	}
	if !t.on && !t.live.IsZero() {
		info.Absorbed = []cold.ID{t.live}
	}
	info.ID = cold.ID(sha1.Sum(fmt.Appendf(nil, "%v %v %d", o.Root, info.Parent, len(t.c.commits))))
	t.c.commits[info.ID] = &memSnapshot{c: t.c, root: root, links: links, info: info, rules: text}
	if t.on {
		t.c.live = info.ID
	} else {
		t.c.head, t.c.live = info.ID, cold.ID{}
	}
	return info.ID, nil
}

// keep takes a directory, and all below it, into cold: of what was put, only what the commit reaches stays.
func (t *memTx) keep(id cold.DirID) {
	list, ok := t.dirs[id]
	if !ok {
		return
	}
	t.c.dirs[id] = list
	for i := range list {
		if list[i].Kind == cold.KindDir {
			t.keep(list[i].Dir())
		}
	}
}
func (t *memTx) Abort() {}
