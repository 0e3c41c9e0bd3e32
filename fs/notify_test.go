package fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// frame builds what the kernel expects: struct fuse_out_header {len, error, unique}, then the words of the
// notification.
func frame(code uint32, payload ...any) []byte {
	var b bytes.Buffer
	for _, p := range payload {
		if s, ok := p.(string); ok {
			b.WriteString(s)
			continue
		}
		if err := binary.Write(&b, binary.NativeEndian, p); err != nil {
			panic(err)
		}
	}
	head := binary.NativeEndian.AppendUint32(nil, uint32(16+b.Len()))
	head = binary.NativeEndian.AppendUint32(head, code)
	head = binary.NativeEndian.AppendUint64(head, 0)
	return append(head, b.Bytes()...)
}

func TestNotificationEncoding(t *testing.T) {
	for what, c := range map[string]struct{ got, want []byte }{
		"inval inode": {notice{node: 5}.encode(), frame(2, uint64(5), int64(0), int64(0))},
		"inval entry": {notice{node: 7, name: "n\xffame"}.encode(),
			frame(3, uint64(7), uint32(5), uint32(0), "n\xffame\x00")},
		"prune": {encodePrune([]uint64{8, 9}), frame(9, uint32(2), uint32(0), uint64(0), uint64(8), uint64(9))},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s:\n%x, want\n%x", what, c.got, c.want)
		}
	}
}

// slowKernel accepts a notification only when the test lets it.
type slowKernel struct {
	kernel
	gate chan struct{}
	took chan string
	err  error
}

func (k *slowKernel) notify(x notice) error {
	<-k.gate
	k.took <- fmt.Sprintf("%d %q", x.node, x.name)
	return k.err
}

func (k *slowKernel) canPrune() bool { return true }

func (k *slowKernel) prune(ids []uint64) error {
	<-k.gate
	k.took <- fmt.Sprintf("prune %d from %d", len(ids), ids[0])
	return k.err
}

func TestNotifierQueues(t *testing.T) {
	k := &slowKernel{gate: make(chan struct{}), took: make(chan string), err: unix.ENOENT}
	n := newNotifier(k, logrus.New())
	n.InvalInode(1)
	k.gate <- struct{}{} // the first is being written: an equal one from now on must go out again
	n.InvalInode(1)
	n.InvalInode(1)
	n.InvalEntry(1, "x")
	n.InvalEntry(1, "x")
	n.InvalEntry(1, "y")
	ids := make([]uint64, pruneBatch+1)
	for i := range ids {
		ids[i] = uint64(i)
	}
	n.Prune(ids)
	for i, want := range []string{`1 ""`, `1 ""`, `1 "x"`, `1 "y"`, "prune 200 from 0", "prune 1 from 200"} {
		if i > 0 {
			k.gate <- struct{}{}
		}
		if got := <-k.took; got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
	n.close()
	n.InvalInode(2) // a late one is dropped, not queued for ever
	n.Prune(ids)
	if len(n.mu.queue) != 0 || len(n.mu.prune) != 0 {
		t.Error("a closed notifier queues")
	}
}

func TestPruneNeedsTheKernel(t *testing.T) {
	if err := new(device).prune([]uint64{1}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
