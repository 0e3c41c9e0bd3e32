package fs

import (
	"encoding/binary"
	"errors"
	"sync"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/tiers"
)

// notice is an invalidation: of a name in the directory node or, if name is empty, of the attributes and pages of node.
// It is comparable, so that equal ones that are waiting can be merged.
type notice struct {
	node  uint64
	name  string
	attrs bool // only of the node's attributes, not of its pages
}

// pruneBatch is how many nodes one prune request names.
const pruneBatch = 200

// notifier sends the storage manager's invalidations to the kernel, from a goroutine of its own. Its methods only queue
// them, except InvalAttr. It is safe for concurrent use.
type notifier struct {
	kernel kernel
	log    logrus.FieldLogger
	wake   chan struct{} // capacity 1
	done   chan struct{}

	mu struct {
		sync.Mutex
		waiting map[notice]struct{}
		queue   []notice
		prune   []uint64
		closed  bool
	}
}

var _ tiers.Invalidator = (*notifier)(nil)

// newNotifier returns a notifier and starts its goroutine. close ends the goroutine.
func newNotifier(k kernel, log logrus.FieldLogger) *notifier {
	n := &notifier{kernel: k, log: log, wake: make(chan struct{}, 1), done: make(chan struct{})}
	n.mu.waiting = make(map[notice]struct{})
	go n.run()
	return n
}

// InvalEntry makes the kernel drop what it knows about name in the directory dir.
func (n *notifier) InvalEntry(dir uint64, name string) { n.add(notice{node: dir, name: name}) }

// InvalInode makes the kernel drop the attributes, ACLs and pages of node id.
func (n *notifier) InvalInode(id uint64) { n.add(notice{node: id}) }

// InvalAttr makes the kernel drop the attributes and ACLs of node id before it returns. It may be called by a handler
// of a request about the node, because this notification, unlike the others, takes no lock of the inode.
func (n *notifier) InvalAttr(id uint64) {
	n.mu.Lock()
	closed := n.mu.closed
	n.mu.Unlock()
	if closed {
		return
	}
	if err := n.kernel.notify(notice{node: id, attrs: true}); err != nil && !errors.Is(err, unix.ENOENT) {
		n.log.WithError(err).WithField("inode", id).Debug("notify the kernel")
	}
}

// CanPrune reports whether Prune does anything (since Linux 6.18). If not, invalidating the names of nodes has to do.
func (n *notifier) CanPrune() bool { return n.kernel.canPrune() }

// Prune asks the kernel to forget those of the nodes that nobody uses. Before Linux 6.18 it does nothing.
func (n *notifier) Prune(ids []uint64) {
	n.mu.Lock()
	if !n.mu.closed {
		n.mu.prune = append(n.mu.prune, ids...)
	}
	n.mu.Unlock()
	n.signal()
}

func (n *notifier) add(x notice) {
	n.mu.Lock()
	_, dup := n.mu.waiting[x]
	if !dup && !n.mu.closed {
		n.mu.waiting[x] = struct{}{}
		n.mu.queue = append(n.mu.queue, x)
	}
	n.mu.Unlock()
	if !dup {
		n.signal()
	}
}

func (n *notifier) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// close drops what is queued, ends the goroutine and waits for it. The connection must be closed or closing, so that no
// notification blocks.
func (n *notifier) close() {
	n.mu.Lock()
	n.mu.closed = true
	n.mu.queue, n.mu.prune = nil, nil
	n.mu.Unlock()
	n.signal()
	<-n.done
}

func (n *notifier) run() {
	defer close(n.done)
	for range n.wake {
		for {
			x, prune, more := n.next()
			if !more {
				break
			}
			var err error
			if prune != nil {
				err = n.kernel.prune(prune)
			} else {
				err = n.kernel.notify(x)
			}
			if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, errors.ErrUnsupported) {
				n.log.WithError(err).WithField("inode", x.node).Debug("notify the kernel")
			}
		}
		n.mu.Lock()
		closed := n.mu.closed
		n.mu.Unlock()
		if closed {
			return
		}
	}
}

// next takes the oldest invalidation from the queue or, if there is none, a batch of nodes to prune.
func (n *notifier) next() (x notice, prune []uint64, more bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.mu.queue) > 0 {
		x = n.mu.queue[0]
		n.mu.queue = n.mu.queue[1:]
		delete(n.mu.waiting, x) // before it is sent: a change from now on needs another notification
		return x, nil, true
	}
	n.mu.queue = nil // so that the array can be freed
	if k := min(pruneBatch, len(n.mu.prune)); k > 0 {
		prune = n.mu.prune[:k:k]
		n.mu.prune = n.mu.prune[k:]
		return x, prune, true
	}
	n.mu.prune = nil
	return x, nil, false
}

// encode returns the message that carries x to the kernel.
func (x notice) encode() []byte {
	if x.name == "" {
		// Offset and length 0 mean all pages, besides attributes and ACLs; a negative offset means no pages.
		out := fuse.NotifyInvalInodeOut{Ino: x.node}
		if x.attrs {
			out.Off = -1
		}
		return message(fuse.NOTIFY_INVAL_INODE, unsafe.Sizeof(out), 0, func(b []byte) {
			*(*fuse.NotifyInvalInodeOut)(unsafe.Pointer(&b[0])) = out
		})
	}
	size := unsafe.Sizeof(fuse.NotifyInvalEntryOut{})
	return message(fuse.NOTIFY_INVAL_ENTRY, size, len(x.name)+1, func(b []byte) {
		*(*fuse.NotifyInvalEntryOut)(unsafe.Pointer(&b[0])) = fuse.NotifyInvalEntryOut{
			Parent: x.node, NameLen: uint32(len(x.name))}
		copy(b[size:], x.name) // the byte after it stays 0, as the kernel expects
	})
}

// encodePrune returns the message that asks the kernel to forget nodes.
func encodePrune(nodes []uint64) []byte {
	size := unsafe.Sizeof(fuse.NotifyPruneOut{})
	return message(fuse.NOTIFY_PRUNE, size, 8*len(nodes), func(b []byte) {
		(*fuse.NotifyPruneOut)(unsafe.Pointer(&b[0])).Count = uint32(len(nodes))
		for i, id := range nodes {
			binary.NativeEndian.PutUint64(b[int(size)+8*i:], id)
		}
	})
}

// message returns a notification with its header. go-fuse's code is negative; the protocol has it, positive, in the
// error field.
func message(code int32, fixed uintptr, rest int, fill func([]byte)) []byte {
	head := unsafe.Sizeof(fuse.OutHeader{})
	b := make([]byte, int(head+fixed)+rest)
	*(*fuse.OutHeader)(unsafe.Pointer(&b[0])) = fuse.OutHeader{Length: uint32(len(b)), Status: -code}
	fill(b[head:])
	return b
}

func (d *device) notify(x notice) error { return d.send(x.encode()) }

func (d *device) canPrune() bool { return d.settings.SupportsNotify(fuse.NOTIFY_PRUNE) }

func (d *device) prune(nodes []uint64) error {
	if !d.canPrune() {
		return errors.ErrUnsupported
	}
	return d.send(encodePrune(nodes))
}

// send writes a message to the kernel unless the connection is closed.
func (d *device) send(msg []byte) error {
	d.closing.RLock()
	defer d.closing.RUnlock()
	if d.closed {
		return syscall.ENODEV
	}
	_, err := unix.Write(d.fd, msg)
	return err
}
