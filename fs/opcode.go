package fs

import (
	"bytes"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Opcodes that the loop has to know; go-fuse does not export its own.
const (
	opLookup        = 1
	opSymlink       = 6
	opMknod         = 8
	opMkdir         = 9
	opUnlink        = 10
	opRmdir         = 11
	opRename        = 12
	opLink          = 13
	opFsync         = 20
	opFsyncDir      = 30
	opCreate        = 35
	opRename2       = 45
	opCopyFileRange = 47
)

// mayBlock reports whether requests of a kind are known to possibly wait for the disk or longer.
func mayBlock(op uint32) bool { return op == opFsync || op == opFsyncDir || op == opCopyFileRange }

// opName returns the name that Stats uses for an opcode, or "" if it has none.
func opName(op int) string {
	names := [opcodes]string{
		1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir",
		10: "unlink",
		11: "rmdir", 12: "rename", 13: "link", 14: "open", 15: "read", 16: "write", 17: "statfs", 18: "release",
		20: "fsync",
		21: "setxattr", 22: "getxattr", 23: "listxattr", 24: "removexattr", 25: "flush", 26: "init", 27: "opendir",
		28: "readdir", 29: "releasedir", 30: "fsyncdir", 31: "getlk", 32: "setlk", 33: "setlkw", 34: "access",
		35: "create",
		36: "interrupt", 37: "bmap", 38: "destroy", 39: "ioctl", 40: "poll", 41: "notify_reply", 42: "batch_forget",
		43: "fallocate", 44: "readdirplus", 45: "rename2", 46: "lseek", 47: "copy_file_range", 50: "syncfs",
		51: "tmpfile",
		52: "statx", 53: "copy_file_range_64",
	}
	return names[op]
}

// go-fuse's protocol server answers requests for this name in the root directory itself (its own server's WaitMount
// uses that), so a volume could not have a file of that name. Therefore the loop replaces the name in requests by
// another of the same length that no program can use, because it contains a slash, and trueName turns it back.
const (
	hackName   = ".go-fuse-epoll-hack"
	hiddenName = "/go-fuse-epoll-hack"
)

// hideName replaces hackName if it is the first name in a request on the root directory.
func hideName(req []byte, op uint32) {
	at := int(unsafe.Sizeof(fuse.InHeader{}))
	switch op {
	case opLookup, opUnlink, opRmdir, opSymlink:
	case opMkdir, opLink, opRename:
		at += 8
	case opMknod, opCreate, opRename2:
		at += 16
	default:
		return
	}
	if len(req) > at+len(hackName) && req[at+len(hackName)] == 0 && bytes.HasPrefix(req[at:], []byte(hackName)) {
		req[at] = hiddenName[0]
	}
}

// trueName returns the name that the program used.
func trueName(name string) string {
	if len(name) > 0 && name[0] == '/' {
		return hackName
	}
	return name
}
