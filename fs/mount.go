package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"emberfs/tiers"
)

// Server is a mounted volume that is being served. Its methods are safe for concurrent use.
type Server struct {
	kernel kernel
	dev    *device // the same as kernel, for its counters
	notes  *notifier
	path   string
	done   chan struct{}
	err    error // set before done is closed

	unmounting sync.Mutex
}

// Mount mounts v at o.Mountpoint and serves it until the mount is gone. When it returns, the mount is visible and
// usable, and the server is v's Invalidator. The error is an *OptionError or a *MountError, and then nothing is left
// mounted.
func Mount(v *tiers.Volume, o Options) (*Server, error) {
	spec, err := o.spec()
	if err != nil {
		return nil, err
	}
	if spec.mountpoint, err = filepath.Abs(spec.mountpoint); err == nil {
		spec.mountpoint, err = filepath.EvalSymlinks(spec.mountpoint)
	}
	if errors.Is(err, unix.ENOTCONN) {
		err = ErrDeadMount
	}
	if err != nil {
		return nil, &MountError{"mount", o.Mountpoint, err}
	}
	p := policy{cache: o.KernelCache}
	f := newOwnFiles(newFilesystem(v, p, o.Log), o.Status, o.Notice)
	fd, detach, err := attach(spec)
	if err != nil {
		return nil, err
	}
	// Negotiating ACLs switches default_permissions on, so a private mount has neither.
	po := protocolOptions(p, spec.defaultPermissions, os.Geteuid() == 0, o.Debug, o.Log)
	d, err := newDevice(fd, f, po, detach, o.Log)
	if err != nil {
		err = &MountError{"mount", spec.mountpoint, err}
		if e := detach(true); e != nil {
			err = errors.Join(err, e)
		}
		return nil, err
	}
	// This fails for a plain user, or if sysfs is read-only as in a container. Reading is then slower, no worse.
	if err := setReadahead(spec.mountpoint); err != nil {
		o.Log.WithError(err).Debug("the kernel's default readahead stays")
	}
	s := &Server{kernel: d, dev: d, path: spec.mountpoint, done: make(chan struct{}), notes: newNotifier(d, o.Log)}
	v.SetInvalidator(s.notes)
	if err := v.SetBacking(d); err != nil {
		o.Log.WithError(err).Info("the kernel cannot be let at files of warm: io: passthrough of rules has no effect")
	}
	go func() {
		defer close(s.done)
		s.err = d.serve()
		s.notes.close()
		f.releaseAll()
	}()
	return s, nil
}

// Mountpoint returns the absolute path of the mountpoint, without symbolic links.
func (s *Server) Mountpoint() string { return s.path }

// Done returns a channel that is closed once the kernel has gone away and every open file is released.
func (s *Server) Done() <-chan struct{} { return s.done }

// Wait returns once Done is closed. It returns nil after an unmount, whoever did it, and after Abort; otherwise
// ErrAborted or the error that ended the connection.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

// Unmount unmounts the volume. Without lazy it fails with EBUSY (use errors.Is) and changes nothing if files are open
// or a program's working directory is inside. With lazy the mount disappears from the tree at once, and Wait returns
// when its last user has gone. If the mount is gone already, that is a success.
func (s *Server) Unmount(lazy bool) error {
	s.unmounting.Lock()
	defer s.unmounting.Unlock()
	select {
	case <-s.done: // whatever is mounted there now is not ours
		return nil
	default:
	}
	err := s.kernel.unmount(lazy)
	if err == nil {
		return nil
	}
	if there, e := mounted(s.path); e == nil && !there {
		return nil // somebody else unmounted it, or it was detached before
	}
	return err
}

// Abort stops serving, whether the mount is still in place or detached. Requests under way are answered, later ones get
// ENOTCONN. It is used when a daemon ends while its mount is still in use, so that nothing is acknowledged after the
// last commit.
func (s *Server) Abort() {
	s.notes.close() // before stop, because a notification may wait for a request to be answered
	s.kernel.stop()
	<-s.done
}

// Stats are counters since the mount.
type Stats struct {
	Requests map[string]uint64 // by operation
	Workers  int               // number of threads now
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	r := Stats{Requests: make(map[string]uint64), Workers: int(s.dev.workers.total.Load())}
	for op := range s.dev.requests {
		n := s.dev.requests[op].Load()
		if n == 0 {
			continue
		}
		name := opName(op)
		if name == "" {
			name = fmt.Sprintf("opcode %d", op)
		}
		r.Requests[name] = n
	}
	return r
}
