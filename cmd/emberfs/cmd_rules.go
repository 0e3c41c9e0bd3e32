package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"emberfs/fs"
	"emberfs/tiers"
	"emberfs/tiers/rules"
)

func rulesCommand(w world) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rules [MOUNTPOINT]",
		Short: "Show the rules: what is critical, what stays out of commits, what in memory",
		Long: `This command lists the rules in effect in the volume at MOUNTPOINT, where they come from
(none, config, written here, the volume, or the commit that brought them), those that are withheld, and why
new ones were refused. Without MOUNTPOINT it takes the mount that the working directory lies in.

The rules are in the settings file (--config, key "rules"), or else in .emberfs/rules.yaml of the mount, which
takes effect when it is closed. The manual page emberfs-rules(5) says how rules are written.

With --json the command prints an object with mountpoint, from, rules, withheld (objects with match, class, rule
and line) and error.`,
		Example: `  emberfs rules /mnt/work`,
		Args:    argsBetween(0, 1, ""),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		target := ""
		if len(args) > 0 {
			target = args[0]
		}
		return withCode(exitFailed, "rules", target, listRules(context.Background(), target, asJSON, w))
	}
	cmd.AddCommand(rulesTestCommand(w), rulesCheckCommand(w))
	return cmd
}

func rulesTestCommand(w world) *cobra.Command {
	var asJSON bool
	var from string
	cmd := &cobra.Command{
		Use:   "test PATH... [--rules FILE]",
		Short: "Say which rule decides about each PATH, and why",
		Long: `This command says which rule decides about each PATH in a mount, and why. The PATH need not
exist. A PATH that ends with a slash, or is there as a directory, is a directory. With --rules the command
asks the rules of FILE, a list of rules or a settings file, without any mount, and a PATH is relative to the
root of the volume. The manual page emberfs-rules(5) says how rules are written.

With --json the command prints a list of objects with path, class (critical, session, memory or ignored), rule
(its number, 0 for none), why, from and rules (each with rule, line, decides and why), and also path64 where the
path is not UTF-8.`,
		Example: `  emberfs rules test /mnt/work/state/notes.md
  emberfs rules test --rules my-rules.yaml app/node_modules/ app/data.db`,
		Args: argsBetween(1, -1, "PATH"),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: a list of objects")
	cmd.Flags().StringVar(&from, "rules", "", "ask the rules in `FILE`; - is standard input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask := func() ([]tiers.RulesReport, error) { return askMounts(context.Background(), args) }
		if cmd.Flags().Changed("rules") {
			ask = func() ([]tiers.RulesReport, error) { return askFile(from, args, os.Stdin) }
		}
		reports, err := ask()
		if err == nil && asJSON {
			err = printReportsJSON(w.out, reports)
		} else if err == nil {
			err = printReports(w.out, reports)
		}
		return withCode(exitFailed, "rules test", "", err)
	}
	return cmd
}

func rulesCheckCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether FILE is a list of rules that would be taken",
		Long: `This command says whether FILE, a list of rules or a settings file with the key "rules",
would be taken; a FILE of "-" is standard input. It exits 1 with the line, the rule and the reason where it
would not. The manual page emberfs-rules(5) says how rules are written.`,
		Example: `  emberfs rules check my-rules.yaml`,
		Args:    argsBetween(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := rulesOfFile(args[0], os.Stdin)
			if err != nil {
				return withCode(exitFailed, "rules check", args[0], err)
			}
			_, err = fmt.Fprintf(w.out, "%s: %s\n", args[0], count(int64(len(set.Rules())), "rule"))
			return err
		},
	}
}

// rulesResult is what `emberfs rules --json` prints.
type rulesResult struct {
	Mountpoint string `json:"mountpoint"`
	tiers.RulesList
}

func listRules(ctx context.Context, target string, asJSON bool, w world) error {
	look, at := find, target
	if target == "" {
		look, at = findAbove, "."
	}
	f, err := look(at)
	if err != nil {
		return err
	}
	e, err := f.one(ctx)
	switch {
	case errors.Is(err, errNotMounted) && target == "":
		return &failure{code: exitFailed, op: "rules", path: at,
			err: errors.New("the working directory lies in no mounted volume"), hint: "name a mountpoint"}
	case err != nil:
		return &failure{code: exitFailed, op: "rules", path: at, err: err, hint: f.remedy(err)}
	}
	r, err := e.client().rules(ctx, nil)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w.out, rulesResult{e.Mountpoint, r.List})
	}
	return printRules(w.out, e.Mountpoint, r.List)
}

// rulesFrom describes, for people, where rules come from.
func rulesFrom(from string) string {
	switch {
	case from == "config":
		return "from the settings file"
	case from == "none" || from == "written here":
		return from
	}
	return "from " + from
}

// printRules prints the rules of one volume for people.
func printRules(out io.Writer, mountpoint string, l tiers.RulesList) error {
	tab := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tab, "mountpoint\t%s\n", oneLine(mountpoint))
	fmt.Fprintf(tab, "rules\t%s, %s\n", count(int64(len(l.Rules)), "rule"), rulesFrom(l.From))
	for i, r := range l.Rules {
		fmt.Fprintf(tab, "%d\t%s\n", i+1, oneLine(r.Rule))
	}
	for _, r := range l.Withheld {
		fmt.Fprintf(tab, "withheld\t%s\n", oneLine(r.Rule))
	}
	if len(l.Withheld) > 0 {
		fmt.Fprintln(tab, "note\twithheld rules came with the repository: mount with accept_rules, or write them to "+
			".emberfs/rules.yaml here")
	}
	if l.Error != "" {
		fmt.Fprintf(tab, "ERROR\t%s\n", oneLine(l.Error))
	}
	return tab.Flush()
}

// askMounts asks, for each path, the daemon of the mount that it is in.
func askMounts(ctx context.Context, args []string) ([]tiers.RulesReport, error) {
	reports := []tiers.RulesReport{}
	states := map[string]string{} // by mountpoint
	for _, arg := range args {
		mountpoint, p, err := rulesPathOf(arg)
		if err != nil {
			return nil, err
		}
		state, known := states[mountpoint]
		if !known {
			f, err := find(mountpoint)
			if err != nil {
				return nil, err
			}
			e, err := f.one(ctx)
			if err != nil {
				return nil, &failure{code: exitFailed, op: "rules test", path: arg, err: err, hint: f.remedy(err)}
			}
			state, states[mountpoint] = e.State, e.State
		}
		r, err := newClient(state).rules(ctx, []rulesPath{p})
		if err != nil {
			return nil, err
		}
		for _, report := range r.Reports {
			report.Path = string(p.Path) // as it was asked for, because JSON can only carry UTF-8
			reports = append(reports, report)
		}
	}
	return reports, nil
}

// rulesPathOf finds the mount in which a path is. The path need not exist. If its last component is a symbolic link,
// that is not followed.
func rulesPathOf(arg string) (mountpoint string, p rulesPath, err error) {
	table, err := fs.Mounts()
	if err != nil {
		return "", p, err
	}
	abs, err := filepath.Abs(arg)
	if err != nil {
		return "", p, err
	}
	dir, err := resolveExisting(filepath.Dir(abs))
	if err != nil {
		return "", p, plainError(err)
	}
	at := filepath.Join(dir, filepath.Base(abs))
	if mountpoint = mountAbove(table, at); mountpoint == "" {
		if resolved, err := resolveExisting(at); err == nil {
			at, mountpoint = resolved, mountAbove(table, resolved)
		}
	}
	if mountpoint == "" {
		return "", p, &failure{code: exitUsage, op: "rules test", path: arg,
			err:  errors.New("lies in no mounted volume"),
			hint: "name paths in a mount, or rules by --rules FILE"}
	}
	rel, err := filepath.Rel(mountpoint, at)
	if err != nil {
		return "", p, err
	}
	if rel == "." {
		return mountpoint, rulesPath{Dir: true}, nil
	}
	fi, err := os.Lstat(at)
	return mountpoint, rulesPath{Path: []byte(rel), Dir: strings.HasSuffix(arg, "/") || err == nil && fi.IsDir()}, nil
}

// askFile evaluates the rules in a file for paths relative to the root.
func askFile(file string, args []string, stdin io.Reader) ([]tiers.RulesReport, error) {
	set, err := rulesOfFile(file, stdin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	reports := []tiers.RulesReport{}
	for _, arg := range args {
		p := strings.TrimPrefix(path.Clean("/"+arg), "/")
		reports = append(reports, tiers.ExplainRules(set, file, p, p == "" || strings.HasSuffix(arg, "/")))
	}
	return reports, nil
}

// rulesOfFile reads a list of rules, or the list in a settings file.
func rulesOfFile(file string, stdin io.Reader) (*rules.Set, error) {
	text, err := readBounded(file, stdin)
	if err != nil {
		return nil, plainError(err)
	}
	if set, found, err := rules.ParseConfig(text); found {
		return set, err
	}
	return rules.Parse(text)
}

// readBounded reads a text, but no more than is needed to notice that it is too long.
func readBounded(file string, stdin io.Reader) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(stdin, rules.MaxBytes+1))
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, rules.MaxBytes+1))
}

// printReports prints, for people, which rule decides about each path, and what the others say.
func printReports(out io.Writer, reports []tiers.RulesReport) error {
	tab := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, r := range reports {
		name := quotePath(r.Path)
		if r.Path == "" {
			name = "the root"
		}
		fmt.Fprintf(tab, "%s: %s: %s\n", name, r.Class, r.Why)
		for i, s := range r.Rules {
			mark := " "
			if s.Decides {
				mark = "*"
			}
			fmt.Fprintf(tab, "%s %d\t%s\t%s\n", mark, i+1, oneLine(s.Rule), oneLine(s.Why))
		}
		if err := tab.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// reportResult is one item of the output of `emberfs rules test --json`.
type reportResult struct {
	tiers.RulesReport
	Path64 []byte `json:"path64,omitempty"` // set if the name is not UTF-8, which JSON cannot carry
}

func printReportsJSON(out io.Writer, reports []tiers.RulesReport) error {
	list := []reportResult{}
	for _, r := range reports {
		x := reportResult{RulesReport: r}
		if !utf8.ValidString(r.Path) {
			x.Path64 = []byte(r.Path)
		}
		list = append(list, x)
	}
	return printJSON(out, list)
}
