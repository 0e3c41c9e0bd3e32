package tiers

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/fastcache"

	"emberfs/tiers/cold"
)

const (
	// BlockSize is the unit of hot's keys.
	BlockSize = 64 << 10
	// hotPage is the unit of hot's entries: fastcache's log has chunks of 64 KiB, into which an entry of a whole block
	// with its header does not fit, and patching 100 bytes of a block would copy, and push out of the log, 64 KiB.
	hotPage = 4 << 10

	hotMin = 32 << 20 // fastcache takes no less
)

// HotBytes is the part of a memory limit that hot may use; it is mapped outside of the Go heap.
func HotBytes(memoryLimit int64) int64 { return max(hotMin, memoryLimit/3) }

// hotCache keeps recently used file content in memory. It is lossy: an entry may vanish at any time.
//
// Keys are (inode number, birth time, content version, block, page). A version is never used for two contents: it
// starts from warm's ctime, or from a counter where the ctime is too young to be unique, and every change that does not
// patch the cached pages takes a new one.
//
// A nil hotCache holds nothing: files that lie in memory anyway are not kept there twice.
type hotCache struct {
	c       *fastcache.Cache
	limit   int64
	stream  int64 // large requests that end beyond this offset of a file are not worth keeping
	hits    atomic.Uint64
	misses  atomic.Uint64
	version atomic.Uint64
}

func newHot(bytes int64) *hotCache {
	return &hotCache{c: fastcache.New(int(bytes)), limit: bytes, stream: bytes / 4}
}

type hotKey [33]byte

func (n *Inode) hotKey(k *hotKey) {
	binary.LittleEndian.PutUint64(k[0:], n.ino)
	binary.LittleEndian.PutUint64(k[8:], n.gen)
	binary.LittleEndian.PutUint64(k[16:], n.version)
}

func (k *hotKey) at(page int64) []byte {
	const perBlock = BlockSize / hotPage
	binary.LittleEndian.PutUint64(k[24:], uint64(page/perBlock))
	k[32] = byte(page % perBlock)
	return k[:]
}

// newVersion gives n a content version that nothing in the cache has. Inode.io is held for writing, or n is not shared
// yet.
func (h *hotCache) newVersion(n *Inode) {
	if h == nil {
		return
	}
	n.version = h.version.Add(1)<<1 | 1 // odd: versions from a ctime are even
	n.hotHint.Store(false)
}

// versionFrom starts n's version from warm's ctime, so that cached pages are found again after the kernel forgot the
// inode.
func (h *hotCache) versionFrom(n *Inode, ctime cold.Time, now cold.Time) {
	if h == nil {
		return
	}
	// Within a tick of the clock two contents can carry one ctime.
	if age := (now.Sec-ctime.Sec)*1e9 + int64(now.Nsec) - int64(ctime.Nsec); age < 50e6 {
		h.newVersion(n)
		return
	}
	n.version = (uint64(ctime.Sec)*1e9 + uint64(ctime.Nsec)) << 1
	n.hotHint.Store(true)
}

// read copies cached bytes of n from off on into p until the first page that is not cached, and returns how many; atEnd
// says that the file ends there. Inode.io is held.
func (h *hotCache) read(n *Inode, p []byte, off int64) (done int, atEnd bool) {
	if !n.hotHint.Load() {
		h.misses.Add(uint64(pages(len(p))))
		return 0, false
	}
	var k hotKey
	n.hotKey(&k)
	var buf [hotPage]byte
	for done < len(p) {
		pos := off + int64(done)
		page, in := pos/hotPage, int(pos%hotPage)
		want := min(len(p)-done, hotPage-in)
		var got []byte
		if in == 0 && want == hotPage {
			got = h.c.Get(p[done:done:done+hotPage], k.at(page)) // straight into place
		} else {
			got = h.c.Get(buf[:0], k.at(page))
			if len(got) > in {
				copy(p[done:done+want], got[in:])
			}
		}
		if len(got) == 0 {
			h.misses.Add(1)
			return done, false
		}
		h.hits.Add(1)
		done += max(0, min(want, len(got)-in))
		if len(got) < min(hotPage, in+want) {
			return done, true // a short page is the file's last
		}
	}
	return done, false
}

// holds says whether the beginning of n is cached.
func (h *hotCache) holds(n *Inode) bool {
	n.io.RLock()
	defer n.io.RUnlock()
	if !n.hotHint.Load() {
		return false
	}
	var k hotKey
	n.hotKey(&k)
	return h.c.Has(k.at(0))
}

// fill caches p, which was read from off on. atEnd says that the file ends with p. Inode.io is held for reading: all
// who fill at the same time have the same bytes.
func (h *hotCache) fill(n *Inode, p []byte, off int64, atEnd bool) {
	var k hotKey
	n.hotKey(&k)
	skip := 0
	if in := int(off % hotPage); in != 0 {
		skip = hotPage - in
	}
	stored := false
	for skip < len(p) {
		end := min(skip+hotPage, len(p))
		if end-skip < hotPage && !atEnd {
			break
		}
		h.c.Set(k.at((off+int64(skip))/hotPage), p[skip:end])
		stored = true
		skip = end
	}
	if stored {
		n.hotHint.Store(true)
	}
}

// update brings the cached pages up to a write of p at off into a file that was size bytes long before. Inode.io is
// held for writing. Whole pages are stored, parts of pages patched where the page is cached.
func (h *hotCache) update(n *Inode, p []byte, off, size int64) {
	large := len(p) >= 2*BlockSize && off+int64(len(p)) > h.stream
	if large && !n.hotHint.Load() {
		return // nothing cached, nothing worth caching
	}
	var k hotKey
	n.hotKey(&k)
	var buf [hotPage]byte
	// A write beyond the end changes the meaning of the cached last page: zeros follow it now.
	if off > size && size%hotPage != 0 && off/hotPage != size/hotPage {
		h.c.Del(k.at(size / hotPage))
	}
	newSize := max(size, off+int64(len(p)))
	stored := false
	for done := 0; done < len(p); {
		pos := off + int64(done)
		page, in := pos/hotPage, int(pos%hotPage)
		n := min(len(p)-done, hotPage-in)
		chunk := p[done : done+n]
		key := k.at(page)
		switch {
		case large:
			h.c.Del(key)
		case in == 0 && (n == hotPage || pos+int64(n) == newSize):
			h.c.Set(key, chunk)
			stored = true
		default:
			got := h.c.Get(buf[:0], key)
			have := len(got)
			pageStart := page * hotPage
			switch {
			case have == 0 && size <= pageStart && in == 0:
				h.c.Del(key)
			case have == 0:
			case int64(have) != min(hotPage, size-pageStart):
				h.c.Del(key) // it has not the length that it should have
			default:
				if in > have {
					clear(buf[have:in])
				}
				copy(buf[in:], chunk)
				h.c.Set(key, buf[:max(have, in+n)])
				stored = true
			}
		}
		done += n
	}
	if stored {
		n.hotHint.Store(true)
	}
}

func pages(n int) int { return (n + hotPage - 1) / hotPage }

func (h *hotCache) status() HotStatus {
	var s fastcache.Stats
	h.c.UpdateStats(&s)
	return HotStatus{
		TierStatus: TierStatus{Bytes: min(int64(s.EntriesCount)*hotPage, int64(s.BytesSize))}, // a page may hold less
		Hits:       h.hits.Load(), Misses: h.misses.Load(), Limit: h.limit,
	}
}

func (h *hotCache) close() { h.c.Reset() }

// expireHot drops from hot what belongs to files that were not used for age, and returns their number.
func (v *Volume) expireHot(age time.Duration) (files int64) {
	if age <= 0 {
		return 0
	}
	now, old := v.clock(), uint32(age/useTick)
	var list []*Inode
	v.table.mu.RLock()
	for _, n := range v.table.byID {
		if t := n.lastUse.Load(); n.kind == cold.KindFile && n.hotHint.Load() && now-t >= old {
			list = append(list, n)
		}
	}
	v.table.mu.RUnlock()
	for _, n := range list {
		if n.io.TryLock() {
			v.hot.newVersion(n)
			n.io.Unlock()
			files++
		}
	}
	return files
}
