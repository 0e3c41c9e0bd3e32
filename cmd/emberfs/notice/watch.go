package notice

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Options say what to watch.
type Options struct {
	Spec  Spec
	Board *Board
	Log   logrus.FieldLogger
	// Expires is when the machine goes away by its nature, and Lead how long before that a notice says so. The zero
	// value of Expires means that this is not known.
	Expires time.Time
	Lead    time.Duration
}

// Watcher is what watches. Its methods are safe for concurrent use.
type Watcher struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// stopGrace is how long Stop waits for a file or a command that hangs in the kernel.
const stopGrace = 2 * time.Second

// Start begins to watch, and says so in the log where there is something to watch. Stop ends it.
func Start(o Options) *Watcher { return start(o, dmiDir, usual()) }

// rhythm says how often each source is asked, and how long each answer may take.
type rhythm struct {
	aws, awsPatience                            time.Duration
	gcp, gcpHang, gcpPatience                   time.Duration
	azure, azureFirst, azurePatience, azureRest time.Duration
	file, command, commandPatience              time.Duration
}

// usual is the rhythm that the clouds' documents recommend.
func usual() rhythm {
	return rhythm{
		// AWS recommends 5 seconds for both kinds of notices. The patience includes a question for a token.
		aws: 5 * time.Second, awsPatience: 5 * time.Second,
		// Google's server may keep a question open for gcpHang. gcp is the time between questions, where it answers at
		// once.
		gcp: 5 * time.Second, gcpHang: time.Minute, gcpPatience: 75 * time.Second,
		// Azure recommends a second: a spot machine has 30. The first question switches the service on, which takes up
		// to two minutes. A server that fails has a rest.
		azure: time.Second, azureFirst: 150 * time.Second, azurePatience: 5 * time.Second, azureRest: 5 * time.Second,
		file: time.Second, command: 5 * time.Second, commandPatience: 30 * time.Second,
	}
}

func start(o Options, dmi string, r rhythm) *Watcher {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	spec := o.Spec
	if spec.Kind == Auto {
		spec = Spec{Kind: detect(dmi)}
	}
	run := func(source string, watch func(context.Context, teller)) {
		t := teller{board: o.Board, log: o.Log.WithField("notice", source), source: source, rhythm: r}
		wg.Go(func() { watch(ctx, t) })
	}
	switch spec.Kind {
	case AWS:
		run(AWS, watchAWS)
	case GCP:
		run(GCP, func(ctx context.Context, t teller) { watchGCP(ctx, t, gcpPreempted) })
		run(GCP, func(ctx context.Context, t teller) { watchGCP(ctx, t, gcpMaintenance) })
	case Azure:
		run(Azure, watchAzure)
	case File:
		run(File, func(ctx context.Context, t teller) { watchFile(ctx, t, spec.Arg) })
	case Command:
		run(Command, func(ctx context.Context, t teller) { watchCommand(ctx, t, spec.Arg) })
	}
	if spec.Kind != None {
		o.Log.Infof("watching for a notice that this machine goes away: %s", spec)
	}
	if !o.Expires.IsZero() {
		run("clock", func(ctx context.Context, t teller) { watchClock(ctx, t, o.Expires, o.Lead) })
	}
	w := &Watcher{cancel: cancel, done: make(chan struct{})}
	go func() { wg.Wait(); close(w.done) }()
	return w
}

// Stop ends the watchers and waits for them. What they said stays on the board. It may be called more than once.
func (w *Watcher) Stop() {
	w.cancel()
	select {
	case <-w.done:
	case <-time.After(stopGrace):
	}
}

// teller is what a watcher tells its findings to.
type teller struct {
	board  *Board
	log    logrus.FieldLogger
	source string
	rhythm rhythm
}

// say puts what a source says into a slot of the source.
func (t teller) say(slot string, n *Notice) {
	if n != nil {
		n.Source = t.source
	}
	t.board.Put(t.source+"/"+slot, n)
}

// asked notes how asking for something went. Only what is new is logged: a watcher asks again and again.
func (t teller) asked(what string, err error) {
	switch news := t.board.problem(t.source+" "+what, err); {
	case news && err != nil:
		t.log.WithError(err).Warnf("%s cannot be asked for a notice; it is tried again and again", what)
	case news:
		t.log.Infof("%s can be asked for a notice again", what)
	}
}

// each calls f at once and then every interval, until ctx ends.
func each(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// mostAnswer bounds the answer of a metadata server, in bytes.
const mostAnswer = 64 << 10

// bounded is a RoundTripper that reads no more than mostAnswer of an answer: the clouds' modules have no bound.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, mostAnswer), res.Body}
	}
	return res, err
}

// newHTTP returns a client for a metadata server, and what closes its connections. It uses no proxy, whatever the
// environment says, and follows no redirect: the server is this machine's own host. ctx has to bound each request.
func newHTTP() (*http.Client, func()) {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
	}
	return &http.Client{Transport: bounded{transport}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}, transport.CloseIdleConnections
}

// get asks an HTTP server by GET, with a header. An answer other than 200 is an *answerError.
func get(ctx context.Context, client *http.Client, url, header, value string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set(header, value)
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, &answerError{res.StatusCode}
	}
	return io.ReadAll(res.Body)
}

// answerError is the status of an answer that is none.
type answerError struct{ code int }

func (e *answerError) Error() string {
	return fmt.Sprintf("the metadata server answers %d %s", e.code, http.StatusText(e.code))
}
