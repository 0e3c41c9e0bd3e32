package notice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/compute/metadata"
	"golang.org/x/time/rate"
)

const (
	gcpPreempted   = "instance/preempted"
	gcpMaintenance = "instance/maintenance-event"

	// gcpBurst questions may come faster than the rhythm says.
	gcpBurst = 3
)

// watchGCP keeps a question for a change of one path open. The variable GCE_METADATA_HOST names another server, as for
// everything that is made with Google's module. The module's own Subscribe sleeps without regard to its context.
func watchGCP(ctx context.Context, t teller, path string) {
	plain, idle := newHTTP()
	defer idle()
	tag := &tagKeeper{RoundTripper: plain.Transport}
	plain.Transport = tag
	client := metadata.NewClient(plain)
	pace := rate.NewLimiter(rate.Every(t.rhythm.gcp), gcpBurst)
	query := "" // the first question wants an answer at once
	for pace.Wait(ctx) == nil {
		text, err := askGCP(ctx, client, path+query, t.rhythm.gcpPatience)
		if ctx.Err() != nil {
			return
		}
		var n *Notice
		if err == nil {
			n, err = parseGCP(path, strings.TrimSpace(text))
		}
		if t.asked(path, err); err != nil {
			query = "" // whatever happened meanwhile, the next answer tells
			continue
		}
		t.say(path, n)
		query = fmt.Sprintf("?wait_for_change=true&timeout_sec=%d&last_etag=%s", int(t.rhythm.gcpHang.Seconds()),
			url.QueryEscape(tag.last()))
	}
}

// askGCP returns "" for a value that the server does not have.
func askGCP(ctx context.Context, client *metadata.Client, suffix string, patience time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	text, err := client.GetWithContext(ctx, suffix)
	var none metadata.NotDefinedError
	if errors.As(err, &none) {
		return "", nil
	}
	return text, err
}

// parseGCP reads a value. A machine that is migrated lives on.
func parseGCP(path, value string) (*Notice, error) {
	switch path + " " + value {
	case gcpPreempted + " TRUE":
		return &Notice{What: "preempt", Guessed: true, Detail: "the instance is preempted"}, nil
	case gcpMaintenance + " TERMINATE_ON_HOST_MAINTENANCE":
		return &Notice{What: "maintenance", Guessed: true, Detail: "the instance ends for maintenance of its host"}, nil
	case gcpPreempted + " FALSE", gcpPreempted + " ", gcpMaintenance + " NONE", gcpMaintenance + " ",
		gcpMaintenance + " MIGRATE_ON_HOST_MAINTENANCE":
		return nil, nil
	}
	return nil, fmt.Errorf("%s: unknown value %.40q", path, value)
}

// tagKeeper is a RoundTripper that remembers the ETag of the last answer, which the module does not give. A question
// for a change says by it which value it knows, so that no change between two questions is missed.
type tagKeeper struct {
	http.RoundTripper
	mu  sync.Mutex
	tag string
}

func (k *tagKeeper) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := k.RoundTripper.RoundTrip(r)
	if err == nil {
		k.mu.Lock()
		k.tag = res.Header.Get("Etag")
		k.mu.Unlock()
	}
	return res, err
}

func (k *tagKeeper) last() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tag
}
