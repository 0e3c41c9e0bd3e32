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
		Long: `This command mounts a volume on the empty directory MOUNTPOINT and returns when the
directory is usable. A daemon goes on in the background. When the command fails, it leaves nothing behind.

SOURCE is a git repository: the path of a bare one, or ssh://HOST/PATH, HOST:PATH or https://HOST/PATH, as
emberfs-remotes(7) says. Its branch is restored at the first mount, and every backup is pushed to it. Without
SOURCE the volume lives in its state directory alone. After a restore, names and attributes come when a
directory is looked at, and bytes come when they are read; with --tiering=off all bytes are there before the
command returns.

A volume begins where the repository is empty. Where it has other branches, or where SOURCE is a path that
does not exist, the flag --init is needed, so that a wrong name is not taken for an empty volume. Where SOURCE
cannot be reached and an earlier mount left the volume on this machine, the command waits about 10 seconds,
mounts what is here, and says on stderr how old that may be; with --offline=refuse it fails. The daemon then
tries SOURCE until it answers.

The command finds out how the session before this one ended, by what its last commit says. It prints COMPLETE
on stderr where another machine left everything here, and INCOMPLETE with what is known to be missing where
that machine could not take all into its final backup, or never took one. With --require-complete the command
then fails, and changes nothing. Where nobody said how the session ended the command prints nothing about it.

A volume is one branch of a repository and one state directory, and it has one daemon. A second mount of the
same volume is refused with the pid of the first, or waits where the first only finishes its backup. Where the
daemon of this volume has died, its dead mount is taken away, and the new one goes on with everything that was
acknowledged, what is in memory included.

Each flag is a setting but for --options, --quiet and --help. A setting has the same name everywhere: flag
--memory-limit, option -o memory_limit=, YAML memory_limit:, environment EMBERFS_MEMORY_LIMIT. A flag wins
over -o, -o over the environment, the environment over the YAML file, and that over the default. Sizes are
written 100MB or 64MiB, times 30s or 5m. The manual page emberfs-settings(5) says more about each of them.
The option -o also takes the options of mount(8), such as ro, nosuid, nodev, noexec and noatime, and passes
over those that are meant for other programs: defaults, _netdev, nofail, noauto and x-*.`,
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
		return withCode(exitMount, "mount", target,
			mountNow(mountRequest{config: c, options: o, source: source, target: target}, w))
	}
	return cmd
}

// settingValues are the flags that are made from the table of settings, by name.
type settingValues map[string]*settingValue

// settingValue stores a flag's text; resolve checks it together with settings from other places.
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

// given returns those flags that were set on the command line.
func (values settingValues) given(fs *pflag.FlagSet) layer {
	out := layer{}
	for _, s := range settings() {
		if fs.Changed(s.flag()) {
			out[s.name] = given{value: values[s.name].text, where: "--" + s.flag()}
		}
	}
	return out
}
