package powercut

import (
	"fmt"
	"math/rand"
	"path"
	"slices"
	"time"
)

// Op is one operation of a program on a tree of files. Paths are relative to the tree's root.
type Op struct {
	Kind OpKind
	Path string
	To   string `json:",omitempty"` // of Rename; what is there is replaced
	Off  int    `json:",omitempty"` // of Write
	Len  int    `json:",omitempty"` // of what is written
	Sync Sync   `json:",omitempty"` // done before the operation counts as acknowledged
}

func (o Op) String() string {
	return fmt.Sprintf("%s %s %s off %d len %d %s", o.Kind, o.Path, o.To, o.Off, o.Len, o.Sync)
}

// OpKind is what an operation does.
type OpKind string

const (
	Mkdir   OpKind = "mkdir"
	Create  OpKind = "create"  // a new file of Len bytes
	Put     OpKind = "write"   // Len bytes at Off of an existing file
	Rewrite OpKind = "rewrite" // truncates to nothing, then writes Len bytes
	Rename  OpKind = "rename"
	Unlink  OpKind = "unlink" // a file or an empty directory
	Touch   OpKind = "touch"  // changes nothing: there for its Sync
)

// Sync is how an operation is made durable.
type Sync string

const (
	Fsync     Sync = "fsync"     // of Path, which may be a directory
	Fdatasync Sync = "fdatasync" // of Path
)

// Event is something that the program was told, in the order of the marks in the disk's log.
type Event struct {
	Ack    bool          `json:",omitempty"` // the next operation, or else: all operations before Op are durable
	Op     int           `json:",omitempty"`
	Commit string        `json:",omitempty"` // that holds them, where there is one
	At     time.Duration // since the beginning
}

// History is what a program did, one operation after the other, and what it was told. Not safe for concurrent use.
type History struct {
	Seed   int64
	Dirs   []string          // the tree at the beginning, durable: directories, parents first
	Files  map[string][]byte // and files
	Ops    []Op
	Events []Event

	root *object
	live map[string]*object
	all  []*object
	upTo int // operations that the objects know of
}

// object is a file or directory and all that happened to it.
type object struct {
	dir     bool
	first   string // its path when it came up
	start   []byte
	names   []naming
	changes []change
	syncs   []syncing
}

// naming is an operation that gave an object its name or took it.
type naming struct {
	op     int // -1: at the beginning
	parent *object
	name   string
	gone   bool    // taken; parent and name are where it was
	by     *object // what replaced it
}

// change is a write, or a truncation to nothing.
type change struct {
	op, off, size int
	trunc         bool
}

type syncing struct {
	op   int
	data bool // fdatasync
}

// Data is what operation op writes. No two operations write the same bytes, and none of any length writes zeros.
func (h *History) Data(op int) []byte {
	b := make([]byte, h.Ops[op].Len)
	rand.New(rand.NewSource(h.Seed<<20 + int64(op))).Read(b)
	return b
}

// Add appends an operation that will succeed.
func (h *History) Add(o Op) int {
	h.Ops = append(h.Ops, o)
	h.replay()
	return len(h.Ops) - 1
}

// Paths lists the files, or the directories, that are there after the last operation, sorted.
func (h *History) Paths(dirs bool) []string {
	h.replay()
	var list []string
	for p, o := range h.live {
		if o.dir == dirs && o != h.root {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// Size is the length of a file after the last operation; -1: there is none.
func (h *History) Size(p string) int {
	h.replay()
	o := h.live[p]
	if o == nil || o.dir {
		return -1
	}
	return len(h.content(o, len(h.Ops)))
}

// content is what a file holds after the first n operations.
func (h *History) content(o *object, n int) []byte {
	b := slices.Clone(o.start)
	for _, c := range o.changes {
		switch {
		case c.op >= n:
		case c.trunc:
			b = nil
		default:
			if end := c.off + c.size; end > len(b) {
				b = append(b, make([]byte, end-len(b))...)
			}
			copy(b[c.off:], h.Data(c.op))
		}
	}
	return b
}

// replay tells the objects of the operations that they do not know yet.
func (h *History) replay() {
	if h.root == nil {
		h.root = &object{dir: true}
		h.live = map[string]*object{".": h.root}
		for _, d := range h.Dirs {
			h.appear(d, &object{dir: true}, -1)
		}
		for p, b := range h.Files {
			h.appear(p, &object{start: b}, -1)
		}
	}
	for ; h.upTo < len(h.Ops); h.upTo++ {
		h.apply(h.upTo, h.Ops[h.upTo])
	}
}

func (h *History) appear(p string, o *object, op int) {
	h.all, o.first = append(h.all, o), p
	h.place(p, o, op)
}

func (h *History) place(p string, o *object, op int) {
	h.live[p] = o
	o.names = append(o.names, naming{op: op, parent: h.live[path.Dir(p)], name: path.Base(p)})
}

func (h *History) apply(i int, op Op) {
	o := h.live[op.Path]
	switch op.Kind {
	case Mkdir, Create:
		o = &object{dir: op.Kind == Mkdir}
		h.appear(op.Path, o, i)
	case Rewrite:
		o.changes = append(o.changes, change{op: i, trunc: true})
	case Rename:
		if old := h.live[op.To]; old != nil {
			old.names = append(old.names, naming{op: i, parent: h.live[path.Dir(op.To)], name: path.Base(op.To),
				gone: true, by: o})
		}
		delete(h.live, op.Path)
		h.place(op.To, o, i)
		h.move(op.Path+"/", op.To+"/")
	case Unlink:
		o.names = append(o.names, naming{op: i, parent: h.live[path.Dir(op.Path)], name: path.Base(op.Path),
			gone: true})
		delete(h.live, op.Path)
	}
	if op.Len > 0 {
		o.changes = append(o.changes, change{op: i, off: op.Off, size: op.Len})
	}
	if op.Sync != "" {
		o.syncs = append(o.syncs, syncing{i, op.Sync == Fdatasync})
	}
}

// move gives what lies below a renamed directory its new paths.
func (h *History) move(from, to string) {
	for p, o := range h.live {
		if len(p) > len(from) && p[:len(from)] == from {
			delete(h.live, p)
			h.live[to+p[len(from):]] = o
		}
	}
}
