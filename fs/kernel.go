package fs

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/tiers"
)

// kernel is what this package needs of the connection to the kernel.
type kernel interface {
	// serve answers requests until the kernel has gone away or stop is called. It returns nil after an unmount,
	// otherwise why it ended.
	serve() error
	// notify sends one notification. It may wait for requests under way, so no request handler may call it, except with
	// a notification of attributes only.
	notify(n notice) error
	// prune asks the kernel to forget nodes that nobody uses. Before Linux 6.18 it returns errors.ErrUnsupported.
	prune(nodes []uint64) error
	// Backing gives the kernel files to read and write itself.
	tiers.Backing
	// canPrune reports whether prune does anything.
	canPrune() bool
	// unmount detaches the mount: completely, or EBUSY if it is in use; or, if lazy, as soon as its last user has gone.
	unmount(lazy bool) error
	// stop makes serve end while the mount is still there. Programs get ENOTCONN from then on.
	stop()
}

var _ kernel = (*device)(nil)

// ErrAborted says that the connection was cut by the administrator (/sys/fs/fuse/connections/N/abort), or because its
// user namespace ended.
var ErrAborted = errors.New("the kernel aborted the connection")

// device is a FUSE connection: /dev/fuse, and worker threads that read it. go-fuse's ProtocolServer decodes the
// requests.
type device struct {
	fd       int // /dev/fuse, non-blocking
	wake     int // eventfd, readable once stop was called
	proto    *fuse.ProtocolServer
	log      logrus.FieldLogger
	detach   func(lazy bool) error
	settings fuse.InitIn // the kernel's part of INIT
	flags    uint64      // the capabilities that were negotiated

	stopping atomic.Bool
	failed   atomic.Pointer[error] // the first reason for the end other than an unmount
	workers  pool
	requests [opcodes]atomic.Uint64
	closing  sync.RWMutex // read-locked while code outside the workers uses fd, which must not be closed and reused
	closed   bool         // guarded by closing
}

// opcodes is the number of counters by opcode. FUSE uses 1 to 53 today.
const opcodes = 64

// newDevice answers INIT on a connection that was just mounted. It takes ownership of fd, even if it fails.
func newDevice(fd int, raw fuse.RawFileSystem, o *fuse.MountOptions, detach func(bool) error, log logrus.FieldLogger) (
	*device, error) {
	d := &device{fd: fd, wake: -1, proto: fuse.NewProtocolServer(raw, o), log: log, detach: detach}
	err := d.init()
	if err == nil {
		d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("greet the kernel on /dev/fuse: %w", err)
	}
	d.workers.init(d.work, d.pending)
	return d, nil
}

// init reads the first request, which is INIT, and answers it.
func (d *device) init() error {
	b, err := newBuffers()
	if err != nil {
		return err
	}
	defer b.free()
	for {
		n, err := d.read(b.in)
		switch err {
		case nil:
		case unix.EINTR, unix.ENOENT:
			continue
		case unix.EAGAIN:
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, -1); err != nil &&
				err != unix.EINTR {
				return fmt.Errorf("poll: %w", err)
			}
			continue
		default:
			return fmt.Errorf("read INIT: %w", err)
		}
		// The kernel's part has grown with time; the rest of a shorter one stays zero.
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&d.settings)), unsafe.Sizeof(d.settings)), b.in[:n])
		m, st := d.proto.HandleRequest([][]byte{b.in[:n]}, [][]byte{b.out})
		if m == 0 || !st.Ok() {
			return fmt.Errorf("answer INIT: %w", syscall.Errno(st))
		}
		h := (*fuse.OutHeader)(unsafe.Pointer(&b.out[0]))
		if h.Status == 0 {
			o := (*fuse.InitOut)(unsafe.Pointer(&b.out[unsafe.Sizeof(*h)]))
			d.flags = o.Flags64()
		}
		if _, err := unix.Write(d.fd, b.out[:m]); err != nil {
			return fmt.Errorf("answer INIT: %w", err)
		}
		if h.Status != 0 {
			return fmt.Errorf("kernel speaks FUSE %d.%d: %w", d.settings.Major, d.settings.Minor,
				syscall.Errno(-h.Status))
		}
		return nil
	}
}

// serve runs the workers, and closes the connection after the last one has ended.
func (d *device) serve() error {
	d.workers.run()
	d.closing.Lock()
	d.closed = true
	unix.Close(d.fd)
	unix.Close(d.wake)
	d.closing.Unlock()
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// stop makes every worker end after its current request.
func (d *device) stop() {
	d.closing.RLock()
	defer d.closing.RUnlock()
	if d.closed || d.stopping.Swap(true) {
		return
	}
	one := [8]byte{1} // eventfd counts in native order; any non-zero value wakes
	if _, err := unix.Write(d.wake, one[:]); err != nil {
		d.log.WithError(err).Error("wake the FUSE workers")
	}
}

func (d *device) unmount(lazy bool) error { return d.detach(lazy) }

// read reads one request. The descriptor is non-blocking, so the Go scheduler need not be told about the system call.
func (d *device) read(p []byte) (int, error) {
	n, _, e := syscall.RawSyscall(syscall.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// wait blocks until there is a request or a reason to end. A worker that may retire waits no longer than window.
func (d *device) wait(w *worker) {
	// Linux wakes readers of /dev/fuse one by one in turn, but pollers all together. With pollers the one on the
	// caller's CPU wins, so that a round trip need not wake a sleeping CPU first.
	p := [2]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}, {Fd: int32(d.wake), Events: unix.POLLIN}}
	timeout := -1
	if w.extra {
		timeout = int(window / time.Millisecond)
	}
	if _, err := unix.Poll(p[:], timeout); err != nil && err != unix.EINTR {
		d.fail(fmt.Errorf("poll /dev/fuse: %w", err))
	}
}

// pending reports whether a request is waiting to be read.
func (d *device) pending() bool {
	p := [1]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p[:], 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0
}

// fail ends the connection because of err.
func (d *device) fail(err error) {
	d.failed.CompareAndSwap(nil, &err)
	d.stop()
}

// next reads one request into b. It returns false if this worker has to end.
func (d *device) next(w *worker, b *buffers) (int, bool) {
	for !d.stopping.Load() {
		n, err := d.read(b.in)
		switch err {
		case nil:
			if n < int(unsafe.Sizeof(fuse.InHeader{})) {
				d.fail(fmt.Errorf("read /dev/fuse: %d bytes are no request", n))
				return 0, false
			}
			return n, true
		case unix.EAGAIN:
			if d.workers.retire(w) {
				return 0, false
			}
			d.wait(w)
		case unix.ENOENT, unix.EINTR: // the request was interrupted before it was read
		case unix.ENODEV: // unmounted
			return 0, false
		case unix.ECONNABORTED:
			d.fail(ErrAborted)
			return 0, false
		default:
			d.fail(fmt.Errorf("read /dev/fuse: %w", err))
			return 0, false
		}
	}
	return 0, false
}

// work is what a worker thread runs from its beginning to its end.
func (d *device) work(w *worker) {
	b, err := newBuffers()
	if err != nil {
		err = fmt.Errorf("buffers of a FUSE worker: %w", err)
		if w.extra { // the other workers suffice
			d.log.WithError(err).Warn("one FUSE worker less")
			d.workers.total.Add(-1)
		} else {
			d.fail(err)
		}
		return
	}
	defer b.free()
	in, out := [][]byte{nil}, [][]byte{b.out}
	for {
		n, ok := d.next(w, b)
		if !ok {
			return
		}
		h := (*fuse.InHeader)(unsafe.Pointer(&b.in[0]))
		op, unique := h.Opcode, h.Unique
		d.requests[op%opcodes].Add(1)
		if h.NodeId == fuse.FUSE_ROOT_ID {
			hideName(b.in[:n], op)
		}
		d.workers.begin(w, mayBlock(op))
		in[0] = b.in[:n]
		m, st := d.proto.HandleRequest(in, out)
		if m > 0 {
			d.reply(op, b.out[:m])
		} else if !st.Ok() {
			d.reply(op, errorReply(b.out, unique, syscall.EIO))
		}
		b.touch(n, m)
		d.workers.end(w)
		if w.extra {
			b.release()
		}
	}
}

// reply sends a reply to the kernel.
func (d *device) reply(op uint32, p []byte) {
	_, err := unix.Write(d.fd, p)
	switch err {
	case nil:
	case unix.ENOENT: // nobody waits for the reply any more
	case unix.ENODEV, unix.EPERM: // unmounted meanwhile
	default:
		d.log.WithError(err).WithFields(logrus.Fields{"opcode": op, "bytes": len(p)}).Error(
			"the kernel refused a reply")
	}
}

// errorReply returns a reply that consists of an errno.
func errorReply(buf []byte, unique uint64, errno syscall.Errno) []byte {
	h := (*fuse.OutHeader)(unsafe.Pointer(&buf[0]))
	*h = fuse.OutHeader{Length: uint32(unsafe.Sizeof(*h)), Status: -int32(errno), Unique: unique}
	return buf[:unsafe.Sizeof(*h)]
}
