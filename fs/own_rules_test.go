package fs

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"emberfs/tiers/rules"
)

func TestOwnRulesWritten(t *testing.T) {
	r := newOwnRig(t)
	node, fh := r.createRules(7)
	r.want("write", r.write(node, fh, 0, goodRules, 0), fuse.OK)
	r.rules("")
	if n := r.size(node); n != uint64(len(goodRules)) {
		t.Errorf("while it is written its size is %d", n)
	}
	r.want("close", r.flush(node, fh), fuse.OK)
	r.rules(goodRules)
	r.release(node, fh)

	// A shell truncates, closes a duplicate, and only then writes.
	node, fh = r.open(unix.O_WRONLY | unix.O_TRUNC)
	r.want("close of a duplicate", r.flush(node, fh), fuse.OK)
	r.rules(goodRules)
	if n := r.size(node); n != 0 {
		t.Errorf("truncated, its size is %d", n)
	}
	_, old := r.open(unix.O_RDONLY)
	r.want("write", r.write(node, fh, 0, moreRules, 0), fuse.OK)
	r.want("append", r.write(node, fh, 1, "# end\n", unix.O_APPEND), fuse.OK)
	r.want("close", r.flush(node, fh), fuse.OK)
	r.rules(moreRules + "# end\n")
	if got := r.content(node, old); got != goodRules {
		t.Errorf("an older handle reads %q", got)
	}
	r.want("close of the reader", r.flush(node, old), fuse.OK)
	r.rules(moreRules + "# end\n")
	r.release(node, fh)

	// In the middle, and cut.
	node, fh = r.open(unix.O_RDWR)
	r.want("write", r.write(node, fh, uint64(strings.Index(moreRules, "b/")), "c", 0), fuse.OK)
	cut := fuse.SetAttrInCommon{InHeader: head(node), Valid: fuse.FATTR_SIZE | fuse.FATTR_FH, Fh: fh,
		Size: uint64(len(moreRules))}
	r.want("ftruncate", r.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: cut}, new(fuse.AttrOut)), fuse.OK)
	r.want("fsync", r.o.Fsync(nil, &fuse.FsyncIn{InHeader: head(node), Fh: fh}), fuse.OK)
	r.rules(strings.Replace(moreRules, "b/", "c/", 1))
	cut.Size = 0
	r.want("ftruncate", r.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: cut}, new(fuse.AttrOut)), fuse.OK)
	r.want("close", r.flush(node, fh), fuse.OK)
	r.rules(strings.Replace(moreRules, "b/", "c/", 1))
	r.release(node, fh) // nothing more comes
	r.rules("")
	if _, st := r.lookup(ownDir, rulesName); !st.Ok() {
		t.Error("an empty file is no file")
	}
	r.want("write of too much", r.write(node, fh, 0, "x", 0), fuse.EBADF)
	node, fh = r.open(unix.O_WRONLY)
	r.want("write of too much", r.write(node, fh, rules.MaxBytes, "x", 0), fuse.Status(syscall.EFBIG))
	r.want("write far behind", r.write(node, fh, 1<<62, "x", 0), fuse.Status(syscall.EFBIG))
	r.want("write of all there may be", r.write(node, fh, 0, strings.Repeat("#", rules.MaxBytes), 0), fuse.OK)
	r.want("close", r.flush(node, fh), fuse.OK)
	far := fuse.SetAttrInCommon{InHeader: head(node), Valid: fuse.FATTR_SIZE, Size: rules.MaxBytes + 1}
	r.want("truncate", r.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: far}, new(fuse.AttrOut)),
		fuse.Status(syscall.EFBIG))
	far.Size = 7
	r.want("truncate", r.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: far}, new(fuse.AttrOut)), fuse.OK)
	r.rules("#######")
}

// TestOwnRulesRefused checks that an invalid list of rules is refused until it changes, and that the old rules stay.
func TestOwnRulesRefused(t *testing.T) {
	r := newOwnRig(t)
	node, fh := r.createRules(7)
	r.want("write", r.write(node, fh, 0, goodRules, 0), fuse.OK)
	r.want("close", r.flush(node, fh), fuse.OK)
	r.release(node, fh)
	said := func() bool { return len(r.o.vol.Status().Errors) > 0 }

	node, fh = r.open(unix.O_WRONLY | unix.O_TRUNC)
	r.want("write", r.write(node, fh, 0, badRules, 0), fuse.OK)
	for range 2 {
		r.want("close", r.flush(node, fh), fuse.EINVAL)
		r.want("fsync", r.o.Fsync(nil, &fuse.FsyncIn{InHeader: head(node), Fh: fh}), fuse.EINVAL)
	}
	if r.rules(goodRules); !said() || r.size(node) != uint64(len(goodRules)) {
		t.Errorf("size %d, status says %q", r.size(node), r.o.vol.Status().Errors)
	}
	fix := fuse.SetAttrInCommon{InHeader: head(node), Valid: fuse.FATTR_SIZE | fuse.FATTR_FH, Fh: fh}
	r.want("ftruncate", r.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fix}, new(fuse.AttrOut)), fuse.OK)
	r.want("write", r.write(node, fh, 0, moreRules, 0), fuse.OK)
	r.want("close", r.flush(node, fh), fuse.OK)
	if r.rules(moreRules); said() {
		t.Errorf("status says %q", r.o.vol.Status().Errors)
	}
	r.release(node, fh)

	// As mv does: remove, then create. Refused, it leaves what there was.
	unlink := func(pid uint32) {
		in := head(ownDir)
		in.Pid = pid
		r.want("unlink", r.o.Unlink(nil, &in, rulesName), fuse.OK)
	}
	_, old := r.open(unix.O_WRONLY)
	unlink(8)
	r.rules("")
	if _, st := r.lookup(ownDir, rulesName); st != fuse.ENOENT {
		t.Errorf("removed: %v", st)
	}
	next, fh := r.createRules(8)
	if next == node {
		t.Error("a new file has the old one's node")
	}
	r.want("write to the removed file", r.write(node, old, 0, goodRules, 0), fuse.OK)
	r.want("its close", r.flush(node, old), fuse.OK)
	r.rules("")
	if n := r.size(node); n != uint64(len(moreRules)) {
		t.Errorf("the removed file has %d bytes", n)
	}
	r.want("write", r.write(next, fh, 0, badRules, 0), fuse.OK)
	r.want("close", r.flush(next, fh), fuse.EINVAL)
	if r.rules(moreRules); !said() {
		t.Error("status says nothing")
	}
	r.release(next, fh)
	unlink(8)
	next, fh = r.createRules(9) // somebody else's: not a replacement
	r.want("write", r.write(next, fh, 0, badRules, 0), fuse.OK)
	r.want("close", r.flush(next, fh), fuse.EINVAL)
	r.rules("")
	var out fuse.OpenOut
	r.want("open of a removed file", r.o.Open(nil, &fuse.OpenIn{InHeader: head(node)}, &out),
		fuse.Status(syscall.ESTALE))
}

// TestOwnRulesLeft covers files that are never released: the kernel drops RELEASE requests when it goes away.
func TestOwnRulesLeft(t *testing.T) {
	r := newOwnRig(t)
	node, fh := r.createRules(7)
	r.want("write", r.write(node, fh, 0, goodRules, 0), fuse.OK)
	r.want("close", r.flush(node, fh), fuse.OK)
	_, _ = r.open(unix.O_WRONLY | unix.O_TRUNC)
	r.o.releaseAll()
	r.rules("")
	node, fh = r.open(unix.O_WRONLY)
	r.want("write", r.write(node, fh, 0, goodRules, 0), fuse.OK)
	r.o.releaseAll() // never closed: half of something
	r.rules("")
}

// TestOwnConcurrency runs writers, readers and removers concurrently: what is in effect must always be the whole text
// of one writer.
func TestOwnConcurrency(t *testing.T) {
	r := newOwnRig(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			text := fmt.Sprintf("# %d\n%s", w, strings.Repeat(goodRules, 1+w))
			for range 30 {
				var out fuse.CreateOut
				in := fuse.CreateIn{InHeader: head(ownDir), Flags: unix.O_WRONLY | unix.O_TRUNC}
				in.Pid = uint32(w)
				r.want("create", r.o.Create(nil, &in, rulesName, &out), fuse.OK)
				r.want("write", r.write(out.NodeId, out.Fh, 0, text[:9], 0), fuse.OK)
				r.want("write", r.write(out.NodeId, out.Fh, 9, text[9:], 0), fuse.OK)
				r.want("close", r.flush(out.NodeId, out.Fh), fuse.OK)
				r.release(out.NodeId, out.Fh)
				if w == 0 {
					if st := r.o.Unlink(nil, ptr(head(ownDir)), rulesName); !st.Ok() && st != fuse.ENOENT {
						t.Error(st)
					}
				}
				got := string(r.o.vol.RulesText())
				if n := strings.Count(got, "match"); got != "" && !strings.HasPrefix(got, fmt.Sprintf("# %d\n", n-1)) {
					t.Errorf("%q is nobody's", got)
				}
				if l := fuse.NewDirEntryList(make([]byte, 4096), 0); !r.o.ReadDirPlus(nil,
					&fuse.ReadIn{InHeader: head(ownDir)}, l).Ok() {
					t.Error("readdir")
				}
			}
		})
	}
	wg.Wait()
}
