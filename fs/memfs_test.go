package fs

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers"
	"github.com/sirupsen/logrus"
)

// memfs is a small file system for tests of the loop: one directory of files in memory, some of which behave in special
// ways.
type memfs struct {
	fuse.RawFileSystem
	policy policy
	dev    *device
	notify *notifier
	gate   chan struct{}
	// blocked counts the reads that wait; memfs.file "blocked" reads as it.
	blocked atomic.Int32

	mu    sync.Mutex
	names map[string]uint64
	data  map[uint64][]byte
	next  uint64
}

func newMemfs(p policy) *memfs {
	m := &memfs{RawFileSystem: fuse.NewDefaultRawFileSystem(), policy: p, gate: make(chan struct{}), next: 2}
	m.names, m.data = make(map[string]uint64), make(map[uint64][]byte)
	for _, n := range []string{"a", "ctl", "stats", "blocked", "block0", "block1"} {
		m.add(n, "content of "+n)
	}
	return m
}

func (m *memfs) add(name, text string) uint64 {
	id := m.next
	m.next++
	m.names[name], m.data[id] = id, []byte(text)
	return id
}

func (m *memfs) attr(id uint64) fuse.Attr {
	a := fuse.Attr{Ino: id, Nlink: 1, Mode: syscall.S_IFREG | 0o644, Size: uint64(len(m.data[id]))}
	a.Uid, a.Gid = uint32(os.Getuid()), uint32(os.Getgid())
	if id == fuse.FUSE_ROOT_ID {
		a.Mode = syscall.S_IFDIR | 0o755
	}
	return a
}

func (m *memfs) entry(out *fuse.EntryOut, id uint64) {
	out.NodeId, out.Generation = id, 1
	out.EntryValid, out.AttrValid = m.policy.seconds(), m.policy.seconds()
	out.Attr = m.attr(id)
}

func (m *memfs) name(id uint64) string {
	for n, i := range m.names {
		if i == id {
			return n
		}
	}
	return ""
}

func (m *memfs) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name == "panic" {
		panic("as the test wants it")
	}
	id, ok := m.names[trueName(name)]
	if !ok {
		out.EntryValid = m.policy.seconds()
		return fuse.OK
	}
	m.entry(out, id)
	return fuse.OK
}

func (m *memfs) Create(_ <-chan struct{}, _ *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	out.Fh = m.add(trueName(name), "")
	m.entry(&out.EntryOut, out.Fh)
	out.OpenFlags = m.policy.fileFlags(tiers.IOCached)
	return fuse.OK
}

func (m *memfs) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	out.AttrValid, out.Attr = m.policy.seconds(), m.attr(in.NodeId)
	return fuse.OK
}

func (m *memfs) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	out.Fh, out.OpenFlags = in.NodeId, m.policy.fileFlags(tiers.IOCached)
	switch n := m.name(in.NodeId); {
	case n == "stats" || n == "blocked" || strings.HasPrefix(n, "block"):
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
	case in.Flags&syscall.O_TRUNC != 0:
		m.data[in.NodeId] = nil
	}
	return fuse.OK
}

func (m *memfs) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	m.mu.Lock()
	name, data := m.name(in.NodeId), m.data[in.NodeId]
	m.mu.Unlock()
	switch {
	case name == "stats":
		data = fmt.Append(nil, m.dev.workers.total.Load())
	case name == "blocked":
		data = fmt.Append(nil, m.blocked.Load())
	case strings.HasPrefix(name, "block"):
		m.blocked.Add(1)
		defer m.blocked.Add(-1)
		select {
		case <-m.gate:
		case <-cancel:
			return nil, fuse.EINTR
		}
	}
	if in.Offset >= uint64(len(data)) {
		return filled{}, fuse.OK
	}
	return filled{buf[:copy(buf, data[in.Offset:])]}, fuse.OK
}

func (m *memfs) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.name(in.NodeId) == "ctl" {
		f := strings.Fields(string(data))
		if len(f) != 3 || f[0] != "set" {
			return 0, fuse.EINVAL
		}
		if id, ok := m.names[f[1]]; ok {
			m.data[id] = []byte(f[2])
			m.notify.InvalInode(id)
		} else {
			m.add(f[1], f[2])
			m.notify.InvalEntry(fuse.FUSE_ROOT_ID, f[1])
		}
		return uint32(len(data)), fuse.OK
	}
	old, end := m.data[in.NodeId], int(in.Offset)+len(data)
	if end > len(old) {
		old = append(old, make([]byte, end-len(old))...)
	}
	copy(old[in.Offset:], data)
	m.data[in.NodeId] = old
	return uint32(len(data)), fuse.OK
}

func (m *memfs) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = m.policy.dirFlags(tiers.DirKeep)
	return fuse.OK
}

func (m *memfs) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := max(in.Offset+1, 2); id < m.next; id++ {
		e := out.AddDirLookupEntry(fuse.DirEntry{Name: m.name(id), Ino: id, Mode: syscall.S_IFREG, Off: id})
		if e == nil {
			break
		}
		m.entry(e, id)
	}
	return fuse.OK
}

func (m *memfs) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// daemonMain is the main function of the process that serves memfs. It does what Mount does, but without a volume.
func daemonMain(mountpoint string) error {
	log := logrus.New()
	log.SetLevel(logrus.DebugLevel)
	o := Options{Mountpoint: mountpoint, AllowOther: os.Getuid() == 0}
	spec, err := o.spec()
	if err != nil {
		return err
	}
	fd, detach, err := attach(spec)
	if err != nil {
		return err
	}
	p := policy{cache: os.Getenv("EMBERFS_TEST_CACHE") != "off"}
	m := newMemfs(p)
	d, err := newDevice(fd, m, protocolOptions(p, spec.defaultPermissions, false, false, log), detach, log)
	if err != nil {
		return err
	}
	m.dev, m.notify = d, newNotifier(d, log)
	s := &Server{kernel: d, dev: d, path: mountpoint, done: make(chan struct{}), notes: m.notify}
	go func() {
		defer close(s.done)
		s.err = d.serve()
		m.notify.close()
	}()
	fmt.Println("ready")
	var answering sync.Mutex // the process must not end before it has answered
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			answering.Lock()
			switch in.Text() {
			case "go":
				close(m.gate)
			case "unmount":
				fmt.Println(errText(s.Unmount(false)))
			case "lazy":
				fmt.Println(errText(s.Unmount(true)))
			case "abort":
				s.Abort()
				fmt.Println("ok")
			}
			answering.Unlock()
		}
	}()
	err = s.Wait()
	answering.Lock()
	return err
}

func errText(err error) string {
	switch e, known := errnoOf(err); {
	case err == nil:
		return "ok"
	case known:
		return e.Error()
	}
	return err.Error()
}
