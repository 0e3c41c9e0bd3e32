package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The pages of the manual are in the directory man. emberfs(8), emberfs-rules(5) and emberfs-remotes(7) are written by
// hand. A page for each command and emberfs-settings(5) are made here, of the texts that --help shows and of the table
// of settings. The code is a test's, so that it is in no binary. github.com/spf13/cobra/doc is not used, because it
// leaves out what the value of a flag is and reads the texts as Markdown.

//go:generate env EMBERFS_WRITE_MAN=1 go test -count=1 -run ^TestManualIsGenerated$ .

const manDir = "man"

// TestManualIsGenerated compares the generated pages with the program, or writes them anew for `go generate`.
func TestManualIsGenerated(t *testing.T) {
	pages := generatedPages(t)
	if os.Getenv("EMBERFS_WRITE_MAN") != "" {
		for _, old := range must(filepath.Glob(filepath.Join(manDir, "emberfs-*.[58]")))(t) {
			if !isHandWritten(filepath.Base(old)) {
				must(0, os.Remove(old))(t)
			}
		}
		for name, text := range pages {
			must(0, os.WriteFile(filepath.Join(manDir, name), []byte(text), 0o644))(t)
		}
		return
	}
	for name, text := range pages {
		if have, err := os.ReadFile(filepath.Join(manDir, name)); err != nil || string(have) != text {
			t.Errorf("%s is not what the program says (%v): go generate ./cmd/emberfs makes it anew", name, err)
		}
	}
	for _, f := range must(os.ReadDir(manDir))(t) {
		if _, ok := pages[f.Name()]; !ok && !isHandWritten(f.Name()) {
			t.Errorf("%s belongs to no command: go generate ./cmd/emberfs removes it", f.Name())
		}
	}
}

// TestManualIsClean checks that groff has no complaints about any page, and that pages of ours to which a page refers
// exist.
func TestManualIsClean(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Fatal("this test needs groff (Debian: groff-base)")
	}
	references := regexp.MustCompile(`(?m)\bXr (emberfs\S*) (\d)`)
	for _, f := range must(os.ReadDir(manDir))(t) {
		path := filepath.Join(manDir, f.Name())
		out, err := exec.Command(groff, "-mdoc", "-ww", "-Tutf8", path).CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning:") {
			t.Errorf("groff: %v\n%s", err, out)
		}
		for _, m := range references.FindAllStringSubmatch(document(t, path), -1) {
			if _, err := os.Stat(filepath.Join(manDir, m[1]+"."+m[2])); err != nil {
				t.Errorf("%s refers to %s(%s): %v", f.Name(), m[1], m[2], err)
			}
		}
	}
}

// TestManualExamples checks that each command accepts the command lines of its examples.
func TestManualExamples(t *testing.T) {
	for _, cmd := range documented(rootCommand(world{})) {
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			words := strings.Fields(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(line, "QUOTED"))
			if len(words) == 0 {
				continue
			}
			root := rootCommand(world{})
			found, rest, err := root.Find(words[1:])
			if err == nil && found.CommandPath() != cmd.CommandPath() {
				err = fmt.Errorf("it is an example of %s", found.CommandPath())
			}
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err == nil {
				err = found.ValidateArgs(found.Flags().Args())
			}
			if words[0] != "emberfs" || err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
}

// TestHelpNamesManual checks that each command describes itself in full, and names its page.
func TestHelpNamesManual(t *testing.T) {
	for _, cmd := range documented(rootCommand(world{})) {
		args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
		_, out, _ := emberfs(t, args...)
		if !strings.HasPrefix(out, cmd.Long) || !strings.HasSuffix(out, "\nManual page: man 8 "+manualPage(cmd)+"\n") {
			t.Errorf("%q prints\n%s", args, out)
		}
	}
}

func isHandWritten(name string) bool {
	return slices.Contains([]string{"emberfs.8", "emberfs-rules.5", "emberfs-remotes.7"}, name)
}

// documented returns cmd and the commands below it, except hidden ones.
func documented(cmd *cobra.Command) []*cobra.Command {
	if manualPage(cmd) == "" {
		return nil
	}
	out := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		out = append(out, documented(c)...)
	}
	return out
}

func generatedPages(t *testing.T) map[string]string {
	// One date for all pages, which is changed by hand in one place.
	date := regexp.MustCompile(`(?m)^\.Dd .*$`).FindString(document(t, filepath.Join(manDir, "emberfs.8")))
	pages := map[string]string{"emberfs-settings.5": settingsPage(date)}
	for _, cmd := range documented(rootCommand(world{}))[1:] {
		pages[manualPage(cmd)+".8"] = commandPage(date, cmd)
	}
	return pages
}

// generated is the first line of a generated page; it says that the page must not be edited.
const generated = ".\\\" Made by go generate ./cmd/emberfs. Edit the texts of the commands and settings there.\n"

func commandPage(date string, cmd *cobra.Command) string {
	name := manualPage(cmd)
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n.Dt %s 8\n.Os EmberFS\n.Sh NAME\n.Nm %s\n", generated, date, strings.ToUpper(name), name)
	b.WriteString(".Nd " + strings.ToLower(cmd.Short[:1]) + cmd.Short[1:] + "\n.Sh SYNOPSIS\n")
	for i, c := range documented(cmd) {
		if i > 0 {
			b.WriteString(".Pp\n")
		}
		b.WriteString(".Nm " + c.CommandPath() + "\n")
		if s := synopsis(c); s != "" {
			b.WriteString(s + "\n")
		}
	}
	b.WriteString(".Sh DESCRIPTION\n" + prose(cmd.Long))
	b.WriteString(".Sh OPTIONS\n.Bl -tag -width Ds\n")
	cmd.InitDefaultHelpFlag()
	add := func(f *pflag.Flag) { b.WriteString(optionEntry(f)) }
	cmd.LocalFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	b.WriteString(".El\n.Sh EXIT STATUS\nThe page\n.Xr emberfs 8\nlists the exit codes.\n")
	if cmd.Example != "" {
		b.WriteString(".Sh EXAMPLES\n.Bd -literal -offset indent\n" + literal(cmd.Example) + ".Ed\n")
	}
	see := []string{"emberfs 8"}
	if cmd.Parent() != cmd.Root() {
		see = append(see, manualPage(cmd.Parent())+" 8")
	}
	for _, c := range documented(cmd)[1:] {
		see = append(see, manualPage(c)+" 8")
	}
	for _, m := range references().FindAllStringSubmatch(cmd.Long, -1) {
		see = append(see, m[1]+" "+m[2])
	}
	b.WriteString(seeAlso(see))
	return b.String()
}

func settingsPage(date string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n.Dt EMBERFS-SETTINGS 5\n.Os EmberFS\n.Sh NAME\n.Nm emberfs-settings\n", generated, date)
	b.WriteString(".Nd the settings of an EmberFS mount\n")
	b.WriteString(".Sh DESCRIPTION\n" + prose(settingsIntroduction) + ".Sh SETTINGS\n.Bl -tag -width Ds\n")
	table := settings()
	slices.SortFunc(table, func(a, b setting) int { return strings.Compare(a.name, b.name) })
	for _, s := range table {
		fmt.Fprintf(&b, ".It Cm %s\n%s", s.name, prose(s.manual+"\n\n"+valueAndDefault(&s)))
	}
	b.WriteString(".El\n.Sh OPTIONS OF MOUNT(8)\n" + prose(mountOptions))
	b.WriteString(".Sh EXAMPLES\nThis is a settings file.\n")
	b.WriteString(".Bd -literal -offset indent\n" + literal(settingsExample) + ".Ed\n")
	b.WriteString(seeAlso([]string{"emberfs 8", "emberfs-mount 8", "emberfs-rules 5", "fstab 5", "mount 8"}))
	return b.String()
}

const settingsIntroduction = `
The settings of a mount have one name everywhere. As an example, memory_limit is the flag --memory-limit of
emberfs-mount(8), the option memory_limit= behind -o and in fstab(5), the line "memory_limit:" in the YAML file that
the setting config names, and the environment variable EMBERFS_MEMORY_LIMIT.

A flag wins over -o, -o wins over the environment, the environment wins over the YAML file, and that wins over the
default. The option -o and the YAML file also take the spelling memoryLimit. An environment variable that is empty
counts as unset. An unknown name or a bad value is an error wherever it stands; of an unknown environment variable
the command only warns, where its name is nearly that of a setting.

A size is written 100MB (decimal), 64MiB (binary) or as a number of bytes. A time is written 30s, 5m, 2h or 1h30m. A
value of on or off may also be written true or false, yes or no, 1 or 0; a flag alone means on.`

const mountOptions = `
The option -o also takes the options ro, rw, nosuid, nodev, noexec, noatime, nodiratime, relatime, strictatime, sync,
dirsync, default_permissions and the SELinux contexts, with their opposites. The options user and users imply noexec,
nosuid and nodev; owner and group imply nosuid and nodev. Options that are meant for other programs are passed over:
defaults, auto, noauto, _netdev, nofail, comment=, helper= and x-*.

The command "mount -o remount" changes ro, nosuid, nodev, noexec and the options about atime. Everything else is fixed
while the volume is mounted.`

const settingsExample = `
source: /srv/git/work.git
memory_limit: 200MB
backup_interval: 10m
rules:
- match: state/
  class: critical`

// TestManualSettings checks that a mount accepts the settings file that the page shows.
func TestManualSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.yaml")
	must(0, os.WriteFile(path, []byte(settingsExample), 0o600))(t)
	c, err := resolve("mount", layer{"config": {value: path, where: "--config"}}, nil, nil)
	if err != nil || c.MemoryLimit != 200e6 || len(c.Rules) == 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// valueAndDefault describes in sentences what values a setting takes, and what its default is.
func valueAndDefault(s *setting) string {
	values := map[kind]string{kindPath: "a path", kindSize: "a size", kindDuration: "a time", kindBool: "on or off"}
	value := values[s.kind]
	switch {
	case s.kind == kindBudget:
		value = "a time of at least 1s, a size of at least 1MiB, both with a comma or + between them, or none"
	case s.kind == kindSize && s.min > 0:
		value += " of at least " + strings.NewReplacer(" ", "", ".0", "").Replace(humanize.IBytes(uint64(s.min)))
	case s.kind == kindDuration && s.min > 0:
		value += " of at least " + time.Duration(s.min).String()
	case s.kind == kindChoice:
		last := len(s.choices) - 1
		value = strings.Join(s.choices[:last], ", ") + " or " + s.choices[last]
	}
	var parts []string
	if value != "" {
		parts = append(parts, "The value is "+value+s.orNone()+".")
	}
	def := s.def
	if s.defHelp != "" {
		def = s.defHelp
	}
	if def != "" {
		parts = append(parts, "The default is "+def+".")
	}
	if len(parts) == 0 {
		parts = append(parts, "There is no default.")
	}
	return strings.Join(parts, " ")
}

func optionEntry(f *pflag.Flag) string {
	value, usage := pflag.UnquoteUsage(f)
	head := ".It "
	if f.Shorthand != "" {
		head += "Fl " + f.Shorthand + " , "
	}
	head += "Fl -" + f.Name
	if value != "" {
		head += " Ar " + value
	}
	none := []string{"", "false", "0", "0s", "[]"}
	if !slices.Contains(none, f.DefValue) && !strings.Contains(usage, "(default ") {
		usage += " (default " + f.DefValue + ")"
	}
	return head + "\n" + prose(strings.ToUpper(usage[:1])+strings.TrimRight(usage[1:], ".")+".")
}

// synopsis returns what follows the command's name, with arguments and flags marked as such.
func synopsis(cmd *cobra.Command) string {
	_, use, _ := strings.Cut(cmd.Use, " ")
	if !cmd.DisableFlagsInUseLine {
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			value, _ := pflag.UnquoteUsage(f)
			_, isSetting := findSetting(normalKey(f.Name))
			if isSetting && cmd.Name() == "mount" || f.Name == "help" || strings.Contains(use, "--"+f.Name) {
				return
			}
			use += strings.TrimRight(" [--"+f.Name+" "+value, " ") + "]"
		})
		if cmd.Name() == "mount" {
			use += " [--SETTING VALUE]"
		}
	}
	use = regexp.MustCompile(`--?[a-z-]*|[A-Z]+`).ReplaceAllStringFunc(use, func(word string) string {
		if word[0] == '-' {
			return `\fB` + strings.ReplaceAll(word, "-", `\-`) + `\fP`
		}
		return `\fI` + word + `\fP`
	})
	return strings.ReplaceAll(use, `\fP...`, `\fP ...`)
}

// prose converts a help text to mdoc: one line per sentence, and macros for references to pages.
func prose(text string) string {
	sentenceEnd := regexp.MustCompile(`([.:?!]["')]*) ([A-Z"])`)
	var b strings.Builder
	for i, p := range paragraphs(text) {
		switch {
		case isVerbatim(p):
			b.WriteString(".Bd -literal -offset indent\n" + literal(p) + ".Ed\n")
			continue
		case i > 0:
			b.WriteString(".Pp\n")
		}
		p = sentenceEnd.ReplaceAllString(strings.Join(strings.Fields(p), " "), "$1\n$2")
		for sentence := range strings.SplitSeq(p, "\n") {
			b.WriteString(filled(sentence))
		}
	}
	return b.String()
}

// filled wraps one sentence for a readable source, with references to other pages on lines of their own.
func filled(sentence string) string {
	var b strings.Builder
	column := 0
	newline := func() {
		if column > 0 {
			b.WriteByte('\n')
		}
		column = 0
	}
	for _, word := range strings.Fields(sentence) {
		if m := references().FindStringSubmatch(word); m != nil && strings.HasPrefix(word, m[0]) {
			newline()
			b.WriteString(".Xr " + m[1] + " " + m[2])
			for _, c := range word[len(m[0]):] { // mdoc wants closing punctuation by itself
				b.WriteString(" " + string(c))
			}
			b.WriteByte('\n')
			continue
		}
		word = escaped(word)
		if column > 0 && column+1+len(word) > 78 {
			newline()
		}
		if column > 0 {
			b.WriteByte(' ')
			column++
		} else if strings.HasPrefix(word, ".") || strings.HasPrefix(word, "'") {
			word = `\&` + word
		}
		b.WriteString(word)
		column += len(word)
	}
	newline()
	return b.String()
}

// literal returns a text whose lines stay as they are, without the indent that --help gives to all of them.
func literal(text string) string {
	var b strings.Builder
	indent := ""
	if text = strings.Trim(text, "\n"); isVerbatim(text) {
		indent = "  "
	}
	for line := range strings.SplitSeq(text, "\n") {
		b.WriteString(escaped(strings.TrimPrefix(line, indent)) + "\n")
	}
	return b.String()
}

// escaped escapes a text for roff. A minus can be copied from the page into a shell, unless it is a hyphen within a
// word.
func escaped(text string) string {
	text = strings.ReplaceAll(text, `\`, `\e`)
	minus := regexp.MustCompile(`(^|[^A-Za-z])-+|(?:--|/)[a-z./-]+`)
	text = minus.ReplaceAllStringFunc(text, func(s string) string { return strings.ReplaceAll(s, "-", `\-`) })
	return strings.NewReplacer("~", `\(ti`, "^", `\(ha`).Replace(text)
}

func references() *regexp.Regexp { return regexp.MustCompile(`([a-z][a-z-]*)\(([1-8])\)`) }

// seeAlso returns the last section, with each page once, by section and name.
func seeAlso(pages []string) string {
	slices.SortFunc(pages, func(a, b string) int {
		if c := strings.Compare(a[len(a)-1:], b[len(b)-1:]); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return ".Sh SEE ALSO\n.Xr " + strings.Join(slices.Compact(pages), " ,\n.Xr ") + "\n"
}
