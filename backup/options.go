package backup

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/google/uuid"
	"github.com/sirupsen/logrus"

	"emberfs/backup/format"
	"emberfs/backup/wire"
)

// Options configure a Cold. The zero value works.
type Options struct {
	Branch string       // the volume's branch; the default is main
	Source string       // the remote: the path of a bare repository, or a URL; "" means no remote
	Remote wire.Options // how it is reached; Dir is set by Open

	// VolumeID is the id for a volume that has no commit yet; the default is a random one. A volume with commits keeps
	// the id in them.
	VolumeID  string
	MachineID string // the machine named in commits whose CommitOptions name none

	UserName, UserEmail string // the author of commits; the default is emberfs <emberfs@localhost>

	UID, GID uint32 // the owner of files that a stock client added

	// ChunkThreshold is the file size in bytes above which a file is stored in chunks; the default is 8 MiB, the
	// minimum 128 KiB. It may differ from the one that the volume was written with.
	ChunkThreshold int64

	// PushMax is the size in bytes over which a push goes in parts that are each a valid state; the default is 1 GiB.
	// Servers refuse bigger ones (GitHub at 2 GiB), and what came before a link broke need not be sent again.
	PushMax int64

	// SourceLater makes it no error of Open that a Source which is a path cannot be used now: each use says it.
	SourceLater bool

	// Init lets a volume begin where the remote has references, but not the volume's branch; otherwise Fetch fails with
	// *cold.NoBranchError there if there is no commit here either.
	Init bool

	Log logrus.FieldLogger // nil: nothing is logged

	// Progress, if not nil, is called about ten times a second while objects come from the remote ("fetch") or go there
	// ("push"), by one goroutine at a time: with how many objects have, of how many (0: not known), and with the bytes
	// of the pack. At the end of a transfer it is called with the last figures, and then with what == "".
	Progress func(what string, objects, of, bytes int64)

	// Fail injects failures in tests of crash safety; see odb.Options.
	Fail func(step string) error
}

// DefaultPushMax is the default of Options.PushMax, in bytes.
const DefaultPushMax = 1 << 30

func (o *Options) setDefaults() error {
	if o.Branch == "" {
		o.Branch = "main"
	}
	if err := plumbing.NewBranchReferenceName(o.Branch).Validate(); err != nil {
		return fmt.Errorf("branch %q: %w", o.Branch, err)
	}
	if o.UserName == "" {
		o.UserName = "emberfs"
	}
	if o.UserEmail == "" {
		o.UserEmail = "emberfs@localhost"
	}
	if o.ChunkThreshold == 0 {
		o.ChunkThreshold = format.DefaultChunkThreshold
	}
	if o.ChunkThreshold < format.MinChunkThreshold {
		return fmt.Errorf("chunk threshold %d: at least %d bytes", o.ChunkThreshold, format.MinChunkThreshold)
	}
	if o.PushMax <= 0 {
		o.PushMax = DefaultPushMax
	}
	if o.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		o.Log = l
	}
	if o.VolumeID == "" {
		o.VolumeID = uuid.NewString()
	}
	return format.CheckVolumeID(o.VolumeID)
}

// ReservedBranch reports whether EmberFS uses branches of this name itself.
func ReservedBranch(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return slices.Contains([]string{"emberfs-live", "emberfs-side", "emberfs-part", "emberfs-lease"}, first)
}
