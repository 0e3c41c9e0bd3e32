// Command blocklog is the disk of the power-cut tests (integration/powercut) and no part of EmberFS: a FUSE mount with
// a file "disk" to put a loop device on, which writes down every write and flush in the order in which they arrive.
//
//	blocklog IMAGE LOG MOUNTPOINT
//
// IMAGE holds the bytes. What is written to the file "mark" goes into LOG between them, so that a program can say what
// it had been told by then. An entry of LOG is 16 bytes, little endian, and its data:
//
//	uint32 kind (1 write, 2 flush, 3 mark), uint32 length of the data, uint64 offset
//
// It needs root, prints "ready" once the mount is usable, and runs until it is unmounted or gets SIGTERM or SIGINT.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: blocklog IMAGE LOG MOUNTPOINT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "blocklog:", err)
		os.Exit(1)
	}
}

func run(image, log, mountpoint string) (err error) {
	d, err := openDisk(image, log)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := d.close(); err == nil {
			err = cerr
		}
	}()
	server, err := fs.Mount(mountpoint, &root{disk: d}, &fs.Options{
		RootStableAttr: &fs.StableAttr{Ino: 1},
		MountOptions: fuse.MountOptions{
			Name:              "blocklog",
			FsName:            image,
			DirectMountStrict: true,
			MaxWrite:          1 << 20,
			DisableXAttrs:     true,
			DisableSplice:     true,
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
				fmt.Fprintf(os.Stderr, "blocklog: unmount %s: %v\n", mountpoint, err)
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
