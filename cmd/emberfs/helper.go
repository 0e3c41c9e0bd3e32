package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/pflag"
)

type helperKind int

const (
	helperNone helperKind = iota
	helperMount
	helperUmount
)

// helperFor returns which of mount(8)'s helpers the program is if it is called by this name.
func helperFor(name string) helperKind {
	switch name {
	case "mount.fuse.emberfs", "mount.emberfs":
		return helperMount
	case "umount.fuse.emberfs", "umount.emberfs":
		return helperUmount
	}
	return helperNone
}

// helperArgs is a helper's command line: SOURCE DIR [-fnrsvw] [-N namespace] [-t type] [-o options] for mount,
// DIR [-flnrv] [-N namespace] [-t type] for umount.
type helperArgs struct {
	args      []string
	options   []string
	fake      bool // mount -f
	force     bool // umount -f
	lazy      bool
	readOnly  bool
	writable  bool
	sloppy    bool
	verbose   bool
	namespace string
}

func parseHelperArgs(kind helperKind, args []string) (helperArgs, error) {
	var h helperArgs
	name := "mount"
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.Usage = func() {}
	var ignored bool
	var ignoredType string
	fs.BoolVarP(&ignored, "no-mtab", "n", false, "")
	fs.BoolVarP(&h.verbose, "verbose", "v", false, "")
	fs.BoolVarP(&h.readOnly, "read-only", "r", false, "")
	fs.StringVarP(&h.namespace, "namespace", "N", "", "")
	fs.StringVarP(&ignoredType, "types", "t", "", "")
	if kind == helperMount {
		fs.BoolVarP(&h.fake, "fake", "f", false, "")
		fs.BoolVarP(&h.sloppy, "sloppy", "s", false, "")
		fs.BoolVarP(&h.writable, "rw", "w", false, "")
		fs.StringArrayVarP(&h.options, "options", "o", nil, "")
	} else {
		name = "umount"
		fs.BoolVarP(&h.force, "force", "f", false, "")
		fs.BoolVarP(&h.lazy, "lazy", "l", false, "")
		fs.BoolVarP(&ignored, "no-canonicalize", "c", false, "")
	}
	if err := fs.Parse(args); err != nil {
		return h, usageError(name, "", err.Error(), "it is called by "+name+"(8)")
	}
	h.args = fs.Args()
	return h, nil
}

// runMountHelper is the program /sbin/mount.fuse.emberfs.
func runMountHelper(args []string, w world) error {
	h, err := parseHelperArgs(helperMount, args)
	if err != nil {
		return err
	}
	o, err := parseOptions("mount", h.options, h.sloppy)
	if err != nil {
		return err
	}
	if h.namespace != "" {
		return mountError("", errors.New("-N is not supported"),
			"enter the namespace: nsenter --mount=... emberfs mount")
	}
	r := mountRequest{options: o, fake: h.fake}
	switch {
	case len(h.args) == 2:
		r.source, r.target = h.args[0], h.args[1]
	case o.remount && len(h.args) == 1:
		r.target = h.args[0]
	case o.remount && len(h.args) == 0:
	default:
		return usageError("mount", "", fmt.Sprintf("want SOURCE and DIR, got %d arguments", len(h.args)),
			"usage: mount -t fuse.emberfs SOURCE DIR [-o options]")
	}
	if h.readOnly && !slices.Contains(r.options.flags, "ro") {
		r.options.flags = append(r.options.flags, "ro")
	}
	if h.writable {
		r.options.flags = slices.DeleteFunc(r.options.flags, func(f string) bool { return f == "ro" })
		r.options.back = append(r.options.back, "ro")
	}
	if r.config, err = resolve("mount", nil, o.values, w.environ); err != nil {
		return err
	}
	for _, warning := range r.config.Warnings {
		fmt.Fprintln(w.err, "emberfs: warning: "+warning)
	}
	if err := withCode(exitMount, "mount", r.target, mountNow(r, w)); err != nil {
		return err
	}
	if h.verbose && !h.fake {
		fmt.Fprintf(w.out, "emberfs: %s mounted on %s\n", h.args[0], r.target)
	}
	return nil
}
