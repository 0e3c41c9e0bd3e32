// Command loopback mounts a directory through go-fuse's own loopback and go-fuse's own server, tuned as far as they go
// without kernel passthrough. It is the reference that scripts/bench measures EmberFS against, and no part of EmberFS.
//
//	loopback ORIG MOUNTPOINT
//
// It needs root, prints "ready" once the mount is usable, and runs until it is unmounted or gets SIGTERM or SIGINT.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a loopback node with the open flags of a filesystem that is the only writer of its tree.
type node struct{ *fs.LoopbackNode }

const openFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH

var (
	_ fs.NodeWrapChilder = (*node)(nil)
	_ fs.NodeOpener      = (*node)(nil)
	_ fs.NodeCreater     = (*node)(nil)
)

func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{ops.(*fs.LoopbackNode)}
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, f, errno := n.LoopbackNode.Open(ctx, flags)
	return h, f | openFlags, errno
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode,
	fs.FileHandle, uint32, syscall.Errno) {
	i, h, f, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return i, h, f | openFlags, errno
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: loopback ORIG MOUNTPOINT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "loopback:", err)
		os.Exit(1)
	}
}

func run(orig, mountpoint string) error {
	root, err := fs.NewLoopbackRoot(orig)
	if err != nil {
		return fmt.Errorf("%s: %w", orig, err)
	}
	long := 24 * time.Hour
	server, err := fs.Mount(mountpoint, &node{root.(*fs.LoopbackNode)}, &fs.Options{
		EntryTimeout:    &long,
		AttrTimeout:     &long,
		NegativeTimeout: &long,
		NullPermissions: true,
		MountOptions: fuse.MountOptions{
			Name:                     "loopback",
			FsName:                   orig,
			AllowOther:               true,
			Options:                  []string{"default_permissions"},
			DirectMountStrict:        true,
			MaxWrite:                 1 << 20,
			MaxBackground:            64,
			EnableSymlinkCaching:     true,
			ExplicitDataCacheControl: true,
			ExtraCapabilities:        fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_ASYNC_DIO,
			DisabledCapabilities:     fuse.CAP_PASSTHROUGH,
		},
	})
	if err != nil {
		return fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	fmt.Println("ready")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	idle := make(chan struct{})
	go func() {
		for range end {
			if err := server.Unmount(); err != nil { // busy: the next signal tries again
				fmt.Fprintf(os.Stderr, "loopback: unmount %s: %v\n", mountpoint, err)
			}
		}
		close(idle)
	}()
	server.Wait()
	signal.Stop(end)
	close(end)
	<-idle
	return nil
}
