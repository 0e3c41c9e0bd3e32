package main

import (
	"errors"
	"strings"
)

// Exit codes of every command, as the man page lists them.
const (
	exitOK     = 0
	exitFailed = 1  // failed, nothing changed
	exitUsage  = 2  // the command line or a setting is wrong
	exitPart   = 3  // done in part: the receipt says what is missing
	exitMount  = 32 // mount(8)'s code for a failed mount or umount
)

// failure is an error message for a person: what failed, on which path, why, and what to do about it.
type failure struct {
	code int
	op   string // what failed: "mount", "restore"
	path string // may be empty
	err  error  // why; nil if a receipt said it already
	hint string // what to do; may be empty
}

func (f *failure) Error() string {
	parts := []string{f.op}
	if f.path != "" {
		parts = append(parts, f.path)
	}
	if f.err != nil {
		parts = append(parts, f.err.Error())
	}
	s := strings.Join(parts, ": ")
	if f.hint != "" {
		s += "; " + f.hint
	}
	return s
}

func (f *failure) Unwrap() error { return f.err }

// usageError returns the error for a mistake on the command line or in a setting.
func usageError(op, what, why, hint string) error {
	return &failure{code: exitUsage, op: op, path: what, err: errors.New(why), hint: hint}
}

// mountError returns the error for a mount that did not happen.
func mountError(path string, err error, hint string) error {
	return &failure{code: exitMount, op: "mount", path: path, err: err, hint: hint}
}

// withCode wraps err with an exit code, unless it has one already.
func withCode(code int, op, path string, err error) error {
	if err == nil {
		return nil
	}
	var f *failure
	if errors.As(err, &f) {
		return err
	}
	return &failure{code: code, op: op, path: path, err: err}
}

// exitCode returns the exit code for err.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var f *failure
	if errors.As(err, &f) {
		return f.code
	}
	return exitFailed
}
