package format

import (
	"fmt"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// TooMuch returns the *cold.TooMuchError for something that no reader would accept.
func TooMuch(format string, a ...any) error {
	return &cold.TooMuchError{Err: fmt.Errorf(format, a...)}
}

// Store is what a snapshot reads from. Outside of tests it is an *odb.DB.
type Store interface {
	Objects
	Stat(id cold.ID) (odb.Type, int64, error)
}

// Ignored returns a list for problems in which nobody is interested.
func Ignored() *Problems { return new(Problems) }
