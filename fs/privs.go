package fs

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"emberfs/tiers"
)

// This file: what a request's header does not say of the program that made it, and which of suid and sgid a change of a
// file's bytes leaves.

// program is what /proc says of a program: proc_pid_status(5). The zero value, of one that cannot be looked at, may
// nothing.
type program struct {
	groups []uint32 // supplementary
	fsetid bool     // CAP_FSETID: what it writes keeps suid and sgid
	killed bool     // SIGKILL is pending, as it is in each thread after any signal that ends the program at once
}

func programOf(pid uint32) (p program) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil { // of another pid namespace, or gone
		return p
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":")
		switch key {
		case "Groups":
			for _, word := range strings.Fields(value) {
				if g, err := strconv.ParseUint(word, 10, 32); err == nil {
					p.groups = append(p.groups, uint32(g))
				}
			}
		case "CapEff":
			caps, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			p.fsetid = err == nil && caps&(1<<unix.CAP_FSETID) != 0
		case "SigPnd":
			pending, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			p.killed = err == nil && pending&(1<<(unix.SIGKILL-1)) != 0
		}
	}
	return p
}

// wasKilled says that a thread is about to end and only waits for its request. One that cannot be looked at was not.
func wasKilled(pid uint32) bool { return pid != 0 && programOf(pid).killed }

// keepsPrivs says that suid and sgid stay where the program of a request changes a file's bytes.
func keepsPrivs(h *fuse.InHeader) bool { return h.Uid == 0 && programOf(h.Pid).fsetid }

// killForeignSGID clears sgid of a file whose group may not execute it before somebody outside of that group changes
// its bytes, as Linux does since 6.2. (Where the group may execute it goes with suid.)
func (f *filesystem) killForeignSGID(ctx context.Context, n *tiers.Inode, h *fuse.InHeader) error {
	mode := n.Mode()
	if mode&unix.S_IFMT != unix.S_IFREG || mode&(unix.S_ISGID|unix.S_IXGRP) != unix.S_ISGID {
		return nil
	}
	v := n.Volume()
	a, err := v.Getattr(ctx, n, nil)
	if err != nil || a.GID == h.Gid || slices.Contains(programOf(h.Pid).groups, a.GID) {
		return err
	}
	mode = a.Mode & modeBits &^ unix.S_ISGID
	if _, err = v.Setattr(ctx, n, nil, &tiers.SetAttr{Mode: &mode}); err == nil {
		v.AttrChanged(n)
	}
	return err
}

// killHeld lets go of suid and sgid that are held back where a program without CAP_FSETID changes a file's bytes by a
// request that says nothing of them: the kernel, which was not shown them, does not ask for it.
func killHeld(n *tiers.Inode, h *fuse.InHeader) error {
	v := n.Volume()
	if !v.HoldsMode(n) || keepsPrivs(h) {
		return nil
	}
	return v.KillHeld(n)
}
