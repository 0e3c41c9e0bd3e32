package format

import (
	"fmt"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// TooMuch says what no reader would take.
func TooMuch(format string, a ...any) error {
	return &cold.TooMuchError{Err: fmt.Errorf(format, a...)}
}

// Store is what a snapshot reads from; *odb.DB outside of tests.
type Store interface {
	Objects
	Stat(id cold.ID) (odb.Type, int64, error)
}

// Ignored is a list of problems that nobody reads.
func Ignored() *Problems { return new(Problems) }
