package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func mountCommand(w world) *cobra.Command {
	var lists []string
	cmd := &cobra.Command{
		Use:   "mount [SOURCE] MOUNTPOINT",
		Short: "Mount a volume; returns when the directory is usable",
		Long: `Mount a volume on the empty directory MOUNTPOINT and return when it is usable; a daemon goes on in the
background. SOURCE is the path of a bare git repository: its branch is restored first, and every
backup is pushed to it. Without SOURCE the volume lives in its state directory alone.
The bytes of a restored file come when they are read; --tiering=off brings all of them first.

Each setting has one name: flag --memory-limit, option -o memory_limit=, YAML memory_limit:,
environment EMBERFS_MEMORY_LIMIT. A flag wins over -o, -o over the environment, the environment over
the YAML file, and that over the default. Sizes read 100MB or 64MiB, times 30s or 5m.
-o also takes mount(8)'s options: ro, nosuid, nodev, noexec, noatime, ... and passes over those
that are for others: defaults, _netdev, nofail, noauto, x-*.`,
		Example: `  emberfs mount /srv/git/work.git /mnt/work
  emberfs mount /mnt/scratch --state /data/scratch -o memory_limit=200MB,backup_interval=5m`,
		Args: argsBetween(1, 2, "MOUNTPOINT"),
	}
	flags := settingFlags(cmd.Flags())
	cmd.Flags().StringArrayVarP(&lists, "options", "o", nil, "settings and mount options as `k=v,...`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		source, target := "", args[len(args)-1]
		if len(args) == 2 {
			source = args[0]
		}
		o, err := parseOptions("mount", lists, false)
		if err != nil {
			return err
		}
		c, err := resolve("mount", flags.given(cmd.Flags()), o.values, w.environ)
		if err != nil {
			return err
		}
		for _, warning := range c.Warnings {
			fmt.Fprintln(w.err, "emberfs: warning: "+warning)
		}
		c.Quiet = w.silent()
		return withCode(exitMount, "mount", target, mountNow(mountRequest{config: c, options: o, source: source, target: target}, w))
	}
	return cmd
}

// settingValues are the flags made from the table of settings.
type settingValues map[string]*settingValue

// settingValue keeps a flag's text; resolve checks it together with the other places.
type settingValue struct {
	text     string
	typeName string
}

func (v *settingValue) Set(s string) error { v.text = s; return nil }
func (v *settingValue) String() string     { return v.text }
func (v *settingValue) Type() string       { return v.typeName }

// settingFlags adds a flag for each setting.
func settingFlags(fs *pflag.FlagSet) settingValues {
	values := settingValues{}
	for _, s := range settings() {
		v := &settingValue{typeName: s.typeName()}
		values[s.name] = v
		short := ""
		if s.name == "foreground" {
			short = "f"
		}
		f := fs.VarPF(v, s.flag(), short, s.usage())
		if s.kind == kindBool {
			f.NoOptDefVal = "true"
		}
	}
	return values
}

// given returns the flags that were set.
func (values settingValues) given(fs *pflag.FlagSet) layer {
	out := layer{}
	for _, s := range settings() {
		if fs.Changed(s.flag()) {
			out[s.name] = given{value: values[s.name].text, where: "--" + s.flag()}
		}
	}
	return out
}
