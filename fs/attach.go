package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"emberfs/tiers/subprocess"
)

// devFuse is the device that is opened for a connection to the kernel.
const devFuse = "/dev/fuse"

var (
	// ErrNoDevice says that this machine or container has no /dev/fuse.
	ErrNoDevice = errors.New("there is no /dev/fuse: load the kernel module fuse, or let the container have the device")
	// ErrNoHelper says that fusermount3, which a plain user's mount needs, was not found.
	ErrNoHelper = errors.New("fusermount3 was not found: only root can mount without it (it is in the package fuse3)")
	// ErrDeadMount says that the mountpoint is a FUSE mount whose daemon has ended.
	ErrDeadMount = errors.New("a FUSE mount without a daemon is still there: detach it with umount -l")
)

// MountError says which step of a mount or unmount failed. Err is one of the errors above, a syscall.Errno, or the
// helper's own words.
type MountError struct {
	Op   string // mount, unmount
	Path string
	Err  error
}

func (e *MountError) Error() string { return e.Op + " " + e.Path + ": " + e.Err.Error() }
func (e *MountError) Unwrap() error { return e.Err }

// checkMountpoint detects ordinary mistakes before anything is mounted.
func checkMountpoint(path string) error {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	switch {
	case errors.Is(err, unix.ENOTCONN):
		return ErrDeadMount
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return unix.ENOTDIR
	}
	return nil
}

// attach mounts, and returns the connection, a non-blocking descriptor, with a function that unmounts.
func attach(s *mountSpec) (fd int, detach func(lazy bool) error, err error) {
	if err := checkMountpoint(s.mountpoint); err != nil {
		return -1, nil, &MountError{"mount", s.mountpoint, err}
	}
	if os.Geteuid() == 0 {
		fd, err = attachDirect(s)
		detach = func(lazy bool) error { return detachDirect(s.mountpoint, lazy) }
	} else {
		fd, err = attachHelper(s)
		detach = func(lazy bool) error { return detachHelper(s.mountpoint, lazy) }
	}
	if err != nil {
		return -1, nil, &MountError{"mount", s.mountpoint, err}
	}
	return fd, detach, nil
}

func attachDirect(s *mountSpec) (int, error) {
	fd, err := unix.Open(devFuse, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return -1, ErrNoDevice
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", devFuse, err)
	}
	data := s.direct(fd, os.Geteuid(), os.Getegid())
	if err := unix.Mount(s.fsname, s.mountpoint, "fuse."+subtype, s.flags, data); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			return -1, fmt.Errorf("mount(2): %w (CAP_SYS_ADMIN is needed)", err)
		}
		return -1, fmt.Errorf("mount(2): %w", err)
	}
	return fd, nil
}

func detachDirect(path string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	if err := unix.Unmount(path, flags); err != nil {
		return &MountError{"unmount", path, err}
	}
	return nil
}

// helperPath returns the path of fusermount3.
func helperPath() (string, error) {
	path, err := subprocess.Fusermount()
	if err != nil {
		return "", ErrNoHelper
	}
	return path, nil
}

// helperError returns the error of a failed fusermount3 in its own words, which name the cause (user_allow_other,
// /dev/fuse...).
func helperError(err error, stderr []byte) error {
	if text := strings.TrimSpace(string(stderr)); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("fusermount3: %w", err)
}

func attachHelper(s *mountSpec) (int, error) {
	if _, err := os.Stat(devFuse); errors.Is(err, os.ErrNotExist) {
		return -1, ErrNoDevice
	}
	bin, err := helperPath()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socketpair for fusermount3: %w", err)
	}
	defer unix.Close(pair[0])
	remote := os.NewFile(uintptr(pair[1]), "fusermount3 socket")
	var stderr bytes.Buffer
	cmd := subprocess.Command(context.Background(), bin, "-o", s.helper(), "--", s.mountpoint)
	cmd.Env = append(cmd.Env, "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{remote}
	cmd.Stderr = &stderr
	err = cmd.Run()
	remote.Close() // before receiving, which then cannot wait for ever if nothing was sent
	if err != nil {
		return -1, helperError(err, stderr.Bytes())
	}
	return receiveFd(pair[0])
}

// receiveFd receives the descriptor that fusermount3 sent.
func receiveFd(sock int) (int, error) {
	buf, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("receive the connection from fusermount3: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, fmt.Errorf("receive the connection from fusermount3: %d messages: %w", len(msgs),
			errors.Join(err, syscall.EPROTO))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("receive the connection from fusermount3: %d descriptors: %w", len(fds),
			errors.Join(err, syscall.EPROTO))
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return -1, fmt.Errorf("make the connection non-blocking: %w", err)
	}
	return fds[0], nil
}

func detachHelper(path string, lazy bool) error {
	bin, err := helperPath()
	if err != nil {
		return &MountError{"unmount", path, err}
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	var stderr bytes.Buffer
	cmd := subprocess.Command(context.Background(), bin, append(args, "--", path)...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		err = helperError(err, stderr.Bytes())
		// The helper has no exit status of its own for this: if the mount is still there, take it to be in use.
		if there, e := mounted(path); e == nil && there {
			err = fmt.Errorf("%w: %w", unix.EBUSY, err)
		}
		return &MountError{"unmount", path, err}
	}
	return nil
}
