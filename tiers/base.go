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

// basis is the component with what all others need: configuration, state, what is at risk.
type basis struct {
	// areaOf is set on an area: the volume whose directories of class memory have their contents in it. An area is a
	// tree on a tmpfs, with warm alone: without cold, records, hot, commits and state.
	areaOf *Volume
	area   atomic.Pointer[Volume] // the area of a volume; nil: there is none

	cfg   Config
	cold  cold.Cold
	log   logrus.FieldLogger
	state *warm.State
	inval atomic.Pointer[Invalidator]

	risk    risk
	points  points
	contact contact

	openedAt  time.Time
	trust     uint16
	untouched bool         // at the start, commits had everything in warm, or warm was new
	changes   atomic.Int64 // how many changes programs began since the start
	doubtful  bool         // the last run may have left changes that no commit has
	afterCut  bool         // the machine stopped without a clean stop since warm was used
	fresh     bool         // warm was restored by this start

	backupDue atomic.Int64  // UnixNano by which a rule wants a commit of everything; 0: none
	backupBy  chan struct{} // capacity 1: backupDue was brought forward

	running   atomic.Bool   // tierLoop runs
	idleTiers chan struct{} // closed when tierLoop has ended

	stop   context.CancelFunc
	wg     sync.WaitGroup
	closed atomic.Bool
	// patience is how long Close waits for operations that hang.
	patience time.Duration
	started  atomic.Bool
}
