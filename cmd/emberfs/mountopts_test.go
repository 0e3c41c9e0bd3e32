package main

import (
	"slices"
	"strings"
	"testing"
)

func TestMountOptions(t *testing.T) {
	for _, c := range []struct {
		in     string
		values map[string]string
		flags  []string
	}{
		{"", nil, nil},
		{"defaults,,rw,_netdev,nofail,noauto,x-systemd.automount,comment=a b,helper=fuse", nil, nil},
		{"ro,nosuid,nodev,noexec,noatime", nil, []string{"noatime", "nodev", "noexec", "nosuid", "ro"}},
		{"ro,rw,nosuid,suid", nil, nil},
		{"rw,ro", nil, []string{"ro"}},
		{"user", nil, []string{"nodev", "noexec", "nosuid"}},
		{"user=joe", nil, []string{"nodev", "noexec", "nosuid"}},
		{"users,exec", nil, []string{"nodev", "nosuid"}},
		{"memoryLimit=200MB,flush_interval=1m", map[string]string{"memory_limit": "200MB", "flush_interval": "1m"},
			nil},
		{"allow_other,kernel_cache=off,nonempty", map[string]string{"allow_other": "true", "kernel_cache": "off",
			"nonempty": "true"}, nil},
		{"branch=a,branch=b", map[string]string{"branch": "b"}, nil},
		{`state=/a\,b,user_name="x,y"`, map[string]string{"state": "/a,b", "user_name": "x,y"}, nil},
		{"max_at_risk=60s,100MB,ro", map[string]string{"max_at_risk": "60s,100MB"}, []string{"ro"}},
		{"max_at_risk=60s,nofail,risk_warn=1GB,5m", map[string]string{"max_at_risk": "60s", "risk_warn": "1GB,5m"},
			nil},
		{"default_permissions,context=system_u:object_r:x:s0", nil,
			[]string{"context=system_u:object_r:x:s0", "default_permissions"}},
	} {
		o, err := parseOptions("mount", []string{c.in}, false)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if !slices.Equal(o.flags, c.flags) {
			t.Errorf("%q: flags %q, want %q", c.in, o.flags, c.flags)
		}
		if len(o.values) != len(c.values) {
			t.Errorf("%q: values %v, want %v", c.in, o.values, c.values)
		}
		for k, v := range c.values {
			if o.values[k].value != v {
				t.Errorf("%q: %s=%q, want %q", c.in, k, o.values[k].value, v)
			}
		}
	}
}

func TestMountOptionMistakes(t *testing.T) {
	for in, say := range map[string]string{
		"memory_limt=1": "did you mean memory_limit?", "nosiud": "did you mean nosuid?", "loop": "unknown option",
		"memory_limit": "needs a value",
		"ro=1":         "unknown option", "fd=3": "unknown option", "fsync=remote": "does not have the setting yet",
	} {
		_, err := parseOptions("mount", []string{in}, false)
		if codeOf(err) != exitUsage || !strings.Contains(err.Error(), say) || !strings.Contains(err.Error(), in) {
			t.Errorf("%q: %v", in, err)
		}
	}
	if o, err := parseOptions("mount", []string{"loop,ro"}, true); err != nil ||
		!slices.Equal(o.flags, []string{"ro"}) {
		t.Errorf("sloppy: %v, %v", o, err)
	}
	if o, err := parseOptions("mount", []string{"remount,ro,user_id=0,max_read=1048576"}, false); err != nil ||
		!o.remount {
		t.Errorf("remount with the kernel's options: %v, %v", o, err)
	}
}

func FuzzMountOptions(f *testing.F) {
	for _, s := range []string{"", "ro,rw", `a\,b="c,d",,\`, "memoryLimit=1GB,remount", "x-\x00,=,==", `"`} {
		f.Add(s, false)
	}
	pairs := flagPairs()
	f.Fuzz(func(t *testing.T, list string, sloppy bool) {
		o, err := parseOptions("mount", []string{list}, sloppy)
		if err != nil {
			if codeOf(err) != exitUsage || sloppy && !strings.Contains(err.Error(), "needs a value") {
				t.Fatalf("%q: %v", list, err)
			}
			return
		}
		for name := range o.values {
			if _, ok := findSetting(name); !ok {
				t.Fatalf("%q: unknown setting %q came out", list, name)
			}
		}
		for _, flag := range o.flags {
			key, _, _ := strings.Cut(flag, "=")
			if _, ok := pairs[flag]; !ok && !isContext(key) {
				t.Fatalf("%q: unknown flag %q came out", list, flag)
			}
		}
	})
}

func FuzzSplitOptions(f *testing.F) {
	f.Add("a", "b,c")
	f.Add(`\`, `"x"`)
	quote := strings.NewReplacer(`\`, `\\`, `,`, `\,`, `"`, `\"`)
	f.Fuzz(func(t *testing.T, a, b string) {
		if a == "" || b == "" {
			return
		}
		got := splitOptions(quote.Replace(a) + "," + quote.Replace(b))
		if !slices.Equal(got, []string{a, b}) {
			t.Fatalf("%q, %q came back as %q", a, b, got)
		}
	})
}

func TestHelperArguments(t *testing.T) {
	h, err := parseHelperArgs(helperMount, []string{"SRC", "/d", "-o", "rw,a=b", "-sfnv", "-o", "c", "-t",
		"fuse.emberfs"})
	if err != nil || !slices.Equal(h.args, []string{"SRC", "/d"}) ||
		!slices.Equal(h.options, []string{"rw,a=b", "c"}) || !h.sloppy || !h.fake || !h.verbose {
		t.Errorf("mount: %+v, %v", h, err)
	}
	if h, err = parseHelperArgs(helperMount, []string{"-r", "-N", "/proc/1/ns/mnt", "--", "-odd", "/d"}); err != nil ||
		!h.readOnly || h.namespace == "" || h.args[0] != "-odd" {
		t.Errorf("mount after --: %+v, %v", h, err)
	}
	if h, err = parseHelperArgs(helperUmount, []string{"/d", "-n", "-f", "-l", "-r", "-v", "-c"}); err != nil ||
		!h.force || !h.lazy || !h.readOnly || h.fake {
		t.Errorf("umount: %+v, %v", h, err)
	}
	if _, err = parseHelperArgs(helperMount, []string{"-Z"}); codeOf(err) != exitUsage {
		t.Errorf("unknown flag: %v", err)
	}
	for name, want := range map[string]helperKind{
		"emberfs": helperNone, "mount.fuse.emberfs": helperMount, "mount.emberfs": helperMount,
		"umount.fuse.emberfs": helperUmount, "umount.emberfs": helperUmount, "mount": helperNone,
	} {
		if got := helperFor(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestHelperUsage(t *testing.T) {
	for _, args := range [][]string{
		{"mount.fuse.emberfs"}, {"mount.fuse.emberfs", "a"}, {"mount.fuse.emberfs", "a", "b", "c"},
		{"mount.fuse.emberfs", "a", "/b", "-o", "bogus"},
		{"umount.fuse.emberfs"}, {"umount.fuse.emberfs", "a", "b"}, {"emberfs", "mount"},
		{"emberfs", "mount", "a", "b", "c"}, {"emberfs", "frob"},
		{"emberfs", "mount", "--frob"}, {"emberfs", "sync"}, {"emberfs", "restore", "--from", "x"},
		{"emberfs", "restore", "--to", "x"},
		{"emberfs", "version", "x"},
	} {
		var out strings.Builder
		if code := run(args, world{out: &out, err: &out}); code != exitUsage {
			t.Errorf("%q: exit %d: %s", args, code, out.String())
		} else if !strings.HasPrefix(out.String(), "emberfs: ") || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%q: want one line that begins with emberfs:, got %q", args, out.String())
		}
	}
	var out strings.Builder
	if code := run([]string{"mount.fuse.emberfs", "-o", "remount,ro"}, world{out: &out, err: &out}); code != exitMount {
		t.Errorf("remount of nothing: exit %d: %s", code, out.String())
	}
	out.Reset()
	if code := run([]string{"/usr/local/bin/emberfs", "version"}, world{out: &out, err: &out}); code != exitOK ||
		!strings.HasPrefix(out.String(), "emberfs "+release) {
		t.Errorf("version: exit %d: %s", code, out.String())
	}
	if code := run([]string{"emberfs"}, world{out: &out, err: &out}); code != exitOK ||
		!strings.Contains(out.String(), "mount") {
		t.Errorf("no command shows the help: exit %d", code)
	}
}
