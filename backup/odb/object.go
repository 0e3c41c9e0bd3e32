package odb

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"strconv"

	"github.com/pjbgf/sha1cd"

	"emberfs/tiers/cold"
)

// ID is the SHA-1 id of a git object.
type ID = cold.ID

// Type is the type of a git object, with the numbers that packs use.
type Type uint8

const (
	Commit Type = 1
	Tree   Type = 2
	Blob   Type = 3
	Tag    Type = 4

	ofsDelta Type = 6
	refDelta Type = 7
)

func (t Type) String() string {
	switch t {
	case Commit:
		return "commit"
	case Tree:
		return "tree"
	case Blob:
		return "blob"
	case Tag:
		return "tag"
	}
	return "type " + strconv.Itoa(int(t))
}

func parseType(s string) (Type, bool) {
	switch s {
	case "commit":
		return Commit, true
	case "tree":
		return Tree, true
	case "blob":
		return Blob, true
	case "tag":
		return Tag, true
	}
	return 0, false
}

// EmptyTree is the id of the tree without entries. Git knows it without having it stored, and so does DB.
var EmptyTree = ID{0x4b, 0x82, 0x5d, 0xc6, 0x42, 0xcb, 0x6e, 0xb9, 0xa0, 0x60, 0xe5, 0x4b, 0xf8, 0xd6, 0x92, 0x88, 0xfb,
	0xee, 0x49, 0x04}

var (
	// ErrTooLarge says that an object or a pack is bigger than the caller's or the DB's limit. Nothing beyond the limit
	// was read.
	ErrTooLarge = errors.New("object is larger than the limit")
	// ErrNoRef says that the reference does not exist.
	ErrNoRef = errors.New("no such reference")
	// ErrLocked says that another process holds <ref>.lock; the message names the file.
	ErrLocked = errors.New("reference is locked")
	// ErrUnsupported says that the repository is of a kind that this version does not read or write.
	ErrUnsupported = errors.New("repository is not supported")
	// ErrNotRepository says that the path is not a bare git repository.
	ErrNotRepository = errors.New("not a bare git repository")
	// ErrClosed says that the DB or the Writer was closed.
	ErrClosed = errors.New("object database is closed")
	// ErrCollision says that the bytes are part of a SHA-1 collision attack. They are neither stored nor returned.
	ErrCollision = errors.New("SHA-1 collision attack detected")
)

func errMissing(id ID) error { return fmt.Errorf("object %s: %w", id, cold.ErrMissing) }

// corruptf returns cold.ErrCorrupt, wrapped with what is wrong.
func corruptf(format string, a ...any) error {
	return fmt.Errorf("%w: %s", cold.ErrCorrupt, fmt.Sprintf(format, a...))
}

// hasher computes object ids. Whatever comes into a repository must be hashed by one that detects collision attacks.
type hasher struct{ h hash.Hash }

func newHasher(t Type, size int64) hasher { return startHash(sha1cd.New(), t, size) }

// newPlainHasher returns a hasher that does not detect collision attacks, which takes a quarter of the time. It is for
// finding damage in objects that were checked when they came in.
func newPlainHasher(t Type, size int64) hasher { return startHash(sha1.New(), t, size) }

func startHash(sum hash.Hash, t Type, size int64) hasher {
	h := hasher{sum}
	var b [32]byte
	p := append(b[:0], t.String()...)
	p = append(p, ' ')
	p = strconv.AppendInt(p, size, 10)
	_, _ = h.h.Write(append(p, 0)) // a hash never fails
	return h
}

func (h hasher) Write(p []byte) (int, error) { return h.h.Write(p) }

// sum returns the id, or ErrCollision.
func (h hasher) sum() (ID, error) {
	var id ID
	c, ok := h.h.(sha1cd.CollisionResistantHash)
	if !ok {
		h.h.Sum(id[:0])
		return id, nil
	}
	_, bad := c.CollisionResistantSum(id[:0])
	if bad {
		return ID{}, fmt.Errorf("object %s: %w", id, ErrCollision)
	}
	return id, nil
}

// verify checks that the object has the id. data is the part of the object that was not written to h yet.
func (h hasher) verify(data []byte, id ID) error {
	_, _ = h.Write(data)
	got, err := h.sum()
	if err == nil && got != id {
		err = corruptf("content has the id %s", got)
	}
	return err
}

// HashObject returns the id that data has as an object of type t, or ErrCollision.
func HashObject(t Type, data []byte) (ID, error) {
	h := newHasher(t, int64(len(data)))
	_, _ = h.Write(data)
	return h.sum()
}

// BlobHash computes the id of a blob whose size is known. It must be used by one goroutine at a time.
type BlobHash struct{ h hasher }

// NewBlobHash begins the hash of a blob of size bytes.
func NewBlobHash(size int64) BlobHash { return BlobHash{newHasher(Blob, size)} }

func (b BlobHash) Write(p []byte) (int, error) { return b.h.Write(p) }

// Sum returns the id of what was written, or ErrCollision.
func (b BlobHash) Sum() (ID, error) { return b.h.sum() }
