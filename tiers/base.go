package tiers

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// basis is what all components of a Volume know.
type basis struct {
	// areaOf is, of the area that holds the contents of directories of class memory, the volume that they are part of;
	// nil for a volume. An area is warm alone, a tree on a tmpfs: without cold, records, hot, a commit or a state.
	areaOf *Volume
	area   atomic.Pointer[Volume] // of a volume: its area; nil: there is none

	cfg   Config
	cold  cold.Cold
	log   logrus.FieldLogger
	state *warm.State
	inval atomic.Pointer[Invalidator]

	risk   risk
	points points

	openedAt  time.Time
	trust     uint16
	untouched bool         // the last run left nothing that no commit has, or there was none
	changes   atomic.Int64 // that programs began since
	doubtful  bool         // the last run may have left changes that no commit has
	afterCut  bool         // the machine stopped without a clean stop since warm was used
	fresh     bool         // warm was restored by this start

	backupDue atomic.Int64  // UnixNano by which a rule wants a backup; 0: none
	backupBy  chan struct{} // capacity 1: backupDue came earlier

	running   atomic.Bool   // tierLoop runs
	idleTiers chan struct{} // closed when tierLoop has ended

	stop   context.CancelFunc
	wg     sync.WaitGroup
	closed atomic.Bool
	// patience is how long Close waits for what hangs.
	patience time.Duration
	started  atomic.Bool
}
