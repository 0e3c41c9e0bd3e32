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

// This file has what a request's header does not say about the program that made it, and which of suid and sgid survive
// a change of a file's bytes.

// program is what /proc says about a program, see proc_pid_status(5). If that cannot be read, the zero value gives it
// no rights.
type program struct {
	groups []uint32 // supplementary groups
	fsetid bool     // CAP_FSETID: what it writes keeps suid and sgid
	killed bool     // SIGKILL is pending: the kernel sets it in each thread when a signal ends the program
}

func programOf(pid uint32) (p program) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil { // it has ended or is in another pid namespace
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

// wasKilled reports whether a thread is about to end and only waits for its request. If that cannot be found out, it
// returns false.
func wasKilled(pid uint32) bool { return pid != 0 && programOf(pid).killed }

// keepsPrivs reports whether suid and sgid survive when the program that made this request changes a file's bytes.
func keepsPrivs(h *fuse.InHeader) bool { return h.Uid == 0 && programOf(h.Pid).fsetid }

// killForeignSGID clears sgid of a file before somebody outside of the file's group changes its bytes, if the group may
// not execute the file; Linux does the same since 6.2. (If the group may execute it, sgid is cleared together with
// suid.)
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

// killHeld drops suid and sgid that are held back, when a program without CAP_FSETID changes a file's bytes by a
// request that cannot say so: the kernel was not shown these bits, so it does not ask to clear them.
func killHeld(n *tiers.Inode, h *fuse.InHeader) error {
	v := n.Volume()
	if !v.HoldsMode(n) || keepsPrivs(h) {
		return nil
	}
	return v.KillHeld(n)
}
