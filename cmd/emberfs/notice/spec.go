package notice

import (
	"errors"
	"path/filepath"
	"strings"
)

// Kinds of Spec.
const (
	Auto    = "auto" // the cloud that this machine is in, if it is in one
	AWS     = "aws"
	GCP     = "gcp"
	Azure   = "azure"
	File    = "file"    // a file that appears; Arg is its absolute path
	Command = "command" // a shell command that exits 0; Arg is the command
	None    = "none"
)

// Spec says what is watched. Signals and a time that was set beforehand count whatever it says.
type Spec struct {
	Kind string
	Arg  string
}

// Parse reads auto, aws, gcp, azure, none, file:PATH or command:COMMAND. A relative path is made absolute.
func Parse(value string) (Spec, error) {
	kind, arg, has := strings.Cut(value, ":")
	switch kind = strings.ToLower(kind); {
	case has && kind == File && arg != "":
		path, err := filepath.Abs(arg)
		return Spec{File, path}, err
	case has && kind == Command && strings.TrimSpace(arg) != "":
		return Spec{Command, arg}, nil
	case !has && (kind == Auto || kind == AWS || kind == GCP || kind == Azure || kind == None):
		return Spec{Kind: kind}, nil
	}
	return Spec{}, errors.New("want auto, aws, gcp, azure, file:PATH, command:COMMAND or none")
}

// String returns the spelling that Parse reads.
func (s Spec) String() string {
	if s.Arg != "" {
		return s.Kind + ":" + s.Arg
	}
	return s.Kind
}
