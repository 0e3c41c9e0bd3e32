package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"emberfs/backup"
	"emberfs/backup/log"
	"emberfs/tiers/cold"
)

// history is access to a volume's commits for commands that need no daemon.
type history struct {
	op         string
	target     string // as the user wrote it, or the mount that the working directory is in
	repo       string
	state      string // "" for a repository without a state directory
	mountpoint string // "" if the volume is not mounted
	cold       *backup.Cold
}

// targetHelp is the part of --help that all commands with a TARGET share.
const targetHelp = `TARGET is a mountpoint, a state directory or a git repository; without it the command takes the mount that
the working directory lies in. It needs no daemon and disturbs none. The first argument is TARGET if it is one of
these and does not lie in a mounted volume.`

// openHistory finds and opens the repository of TARGET, and makes paths relative to the volume's root. rest are the
// other arguments, which may have been meant as TARGET. The caller closes h.cold.
func openHistory(ctx context.Context, op, target, branch string, rest, paths []string, w world) (h *history,
	inside []string, err error) {
	if h, err = findHistory(ctx, op, target); err != nil {
		if target == "" && len(rest) > 0 {
			err = noTarget(op, rest[0])
		}
		return nil, nil, err
	}
	if inside, err = h.inside(paths); err != nil {
		return nil, nil, err
	}
	return h, inside, h.open(branch, w.err)
}

// findHistory finds the repository of TARGET; "" stands for the mount that the working directory is in.
func findHistory(ctx context.Context, op, target string) (*history, error) {
	h := &history{op: op, target: target}
	var f found
	var err error
	if target == "" {
		h.target = "."
		f, err = findAbove(".")
	} else {
		f, err = find(target)
	}
	if err != nil {
		return nil, err
	}
	fail := func(err error, hint string) (*history, error) {
		return nil, &failure{code: exitFailed, op: op, path: h.target, err: err, hint: hint}
	}
	switch {
	case len(f.daemons) > 0:
		e := f.daemons[0]
		if len(f.daemons) > 1 { // use the one that still has its mount
			if one, err := f.one(ctx); err == nil {
				e = one
			}
		}
		h.state, h.mountpoint = e.State, e.Mountpoint
	case f.mount != nil && f.mount.Ours():
		err := f.nobody()
		return fail(err, f.remedy(err))
	case target == "":
		return fail(errors.New("the working directory lies in no mounted volume"),
			"name a mountpoint, a state directory or a repository")
	case exists(filepath.Join(f.path, coldName)):
		h.state = f.path
	case !exists(f.path):
		return fail(errors.New("no such mountpoint, state directory or repository"), "emberfs status lists the mounts")
	default:
		h.repo = f.path
	}
	if h.state != "" {
		h.repo = filepath.Join(h.state, coldName)
	}
	return h, nil
}

// noTarget returns the error for a first argument that is not a TARGET, if there is no other.
func noTarget(op, arg string) error {
	return usageError(op, arg, "no mountpoint, state directory or repository, and the working directory lies in no "+
		"mounted volume",
		"name one of them first")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// open opens the repository for reading and writes nothing there, so it can be in use. Messages go to logTo.
func (h *history) open(branch string, logTo io.Writer) error {
	if branch != "" {
		if err := checkBranch(branch); err != nil {
			return usageError(h.op, "--branch "+branch, err.Error(), "")
		}
	}
	log := newLogger(&config{LogLevel: "warn", LogFormat: "text"}, logTo, false)
	var err error
	o := backup.Options{Branch: branch, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Log: log}
	h.cold, err = backup.OpenRepository(h.repo, o)
	if err != nil {
		return &failure{code: exitFailed, op: h.op, path: h.repo, err: err,
			hint: "name a mountpoint, a state directory or a repository"}
	}
	return nil
}

// resolve returns the commit that a revision names.
func (h *history) resolve(ctx context.Context, rev string) (cold.ID, error) {
	id, err := log.Of(h.cold).Resolve(ctx, rev, time.Now())
	if err != nil {
		return id, &failure{code: exitFailed, op: h.op, path: h.repo, err: fmt.Errorf("revision %w", err),
			hint: "emberfs log " + shellQuote(h.target) + " lists the commits"}
	}
	return id, nil
}

// resolveOr is resolve, but returns the newest commit if rev is "".
func (h *history) resolveOr(ctx context.Context, rev string) (cold.ID, error) {
	if rev != "" {
		return h.resolve(ctx, rev)
	}
	if id, ok, err := h.newest(ctx); ok || err != nil {
		return id, err
	}
	return h.resolve(ctx, "HEAD") // for its error that there is no commit
}

// newest returns the volume's newest commit, which may be on the live branch. ok is false if there is none.
func (h *history) newest(ctx context.Context) (id cold.ID, ok bool, err error) {
	s, err := h.cold.Newest(ctx)
	if err != nil || s == nil {
		return id, false, err
	}
	return s.Info().ID, true, nil
}

// splitTarget separates TARGET, if the first argument is one, and the paths after "--" from the other arguments. dash
// is the position of "--", or -1. Anything inside a mounted volume, even a repository, is taken as a path and not as
// TARGET.
func splitTarget(args []string, dash int) (target string, rest, paths []string, err error) {
	rest = args
	if dash >= 0 {
		rest, paths = args[:dash], args[dash:]
	}
	if len(rest) == 0 {
		return "", rest, paths, nil
	}
	ok, err := isTarget(rest[0])
	if err != nil || !ok {
		return "", rest, paths, err
	}
	return rest[0], rest[1:], paths, nil
}

func isTarget(arg string) (bool, error) {
	f, err := find(arg)
	if err != nil {
		return false, err
	}
	if len(f.daemons) > 0 || f.mount != nil && f.mount.Ours() {
		return true, nil
	}
	if above, err := findAbove(arg); err != nil || len(above.daemons) > 0 {
		return false, err
	}
	bare := exists(filepath.Join(f.path, "HEAD")) && exists(filepath.Join(f.path, "objects"))
	return bare || exists(filepath.Join(f.path, coldName)) || exists(filepath.Join(f.path, ".git")), nil
}

// inside makes PATHs relative to the volume's root. If the volume is mounted, they are names in the mount, which need
// not exist any more. If it is not, or if a relative path does not start in the mount, they are relative to the root
// already.
func (h *history) inside(paths []string) ([]string, error) {
	if h.mountpoint == "" {
		return paths, nil
	}
	var out []string
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		// Resolve symbolic links in the part of the path that exists.
		for head, tail := abs, ""; ; head, tail = filepath.Dir(head), filepath.Join(filepath.Base(head), tail) {
			if below(h.mountpoint, head) {
				break // inside the mount nothing is resolved
			}
			if resolved, err := filepath.EvalSymlinks(head); err == nil {
				abs = filepath.Join(resolved, tail)
				break
			}
		}
		switch {
		case below(h.mountpoint, abs):
			rel, err := filepath.Rel(h.mountpoint, abs)
			if err != nil {
				return nil, err
			}
			out = append(out, rel)
		case filepath.IsAbs(p):
			return nil, usageError(h.op, p, "lies outside of the mount", "name files below "+h.mountpoint)
		default:
			out = append(out, p)
		}
	}
	return out, nil
}

func below(dir, path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// jsonList prints a JSON list of objects one by one.
type jsonList struct {
	out io.Writer
	n   int
}

func (l *jsonList) add(v any) error {
	data, err := json.MarshalIndent(v, "  ", "  ")
	if err != nil {
		return err
	}
	sep := ",\n  "
	if l.n == 0 {
		sep = "[\n  "
	}
	l.n++
	_, err = fmt.Fprintf(l.out, "%s%s", sep, data)
	return err
}

func (l *jsonList) end() error {
	text := "\n]\n"
	if l.n == 0 {
		text = "[]\n"
	}
	_, err := io.WriteString(l.out, text)
	return err
}

// timeText formats a commit's time: as local time on a terminal, otherwise as RFC 3339 in UTC.
func timeText(t time.Time, terminal bool) string {
	if terminal {
		return t.Local().Format("2006-01-02 15:04:05")
	}
	return t.UTC().Format(time.RFC3339)
}

// oneLine makes a text from a repository safe to print on one line of a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// quotePath formats a path as git does: unchanged, or in double quotes with escapes if it has characters that would
// break a line or a terminal. Unlike git it does not escape letters of other languages.
func quotePath(p string) string {
	plain := utf8.ValidString(p)
	for _, r := range p {
		plain = plain && unicode.IsPrint(r) && r != '"' && r != '\\'
	}
	if plain {
		return p
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(p); {
		r, n := utf8.DecodeRuneInString(p[i:])
		named := strings.IndexByte("\a\b\t\n\v\f\r\"\\", p[i])
		switch {
		case named >= 0:
			b.WriteByte('\\')
			b.WriteByte(`abtnvfr"\`[named])
		case unicode.IsPrint(r) && (r != utf8.RuneError || n > 1):
			b.WriteString(p[i : i+n])
		default:
			for _, c := range []byte(p[i : i+n]) {
				fmt.Fprintf(&b, `\%03o`, c)
			}
		}
		i += n
	}
	b.WriteByte('"')
	return b.String()
}
