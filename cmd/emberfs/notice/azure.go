package notice

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	azureServer = "http://169.254.169.254"
	// azureEndpoint is a variable that names another server, for tests: Azure has no module for this.
	azureEndpoint = "AZURE_METADATA_SERVICE_ENDPOINT"

	azureEvents = "/metadata/scheduledevents?api-version=2020-07-01"
	azureName   = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
)

// watchAzure asks for scheduled events. It never acknowledges one (StartRequests): that would let Azure go ahead before
// the time, and take it from whatever else runs here. A hook command can do it.
func watchAzure(ctx context.Context, t teller) {
	server := strings.TrimRight(os.Getenv(azureEndpoint), "/")
	if server == "" {
		server = azureServer
	}
	client, idle := newHTTP()
	defer idle()
	ask := func(path string, patience time.Duration) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return get(ctx, client, server+path, "Metadata", "true")
	}
	var name string // of this machine: events of others in its set are delivered too
	patience := t.rhythm.azureFirst
	each(ctx, t.rhythm.azure, func() {
		text, err := ask(azureEvents, patience)
		var events *azureAnswer
		if err == nil {
			events, err = parseAzure(text)
		}
		if err == nil {
			if patience = t.rhythm.azurePatience; name == "" && len(events.Events) > 0 {
				own, none := ask(azureName, patience)
				if none == nil {
					name = strings.TrimSpace(string(own))
				} else {
					none = fmt.Errorf("all events count as this machine's own: %w", none)
				}
				if ctx.Err() == nil {
					t.asked("compute/name", none)
				}
			}
		}
		if ctx.Err() != nil {
			return
		}
		if t.asked("scheduledevents", err); err != nil {
			pause(ctx, t.rhythm.azureRest)
			return
		}
		t.say("scheduledevents", events.notice(name))
	})
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// azureAnswer is the list of scheduled events.
type azureAnswer struct {
	Events []azureEvent `json:"Events"`
}

type azureEvent struct {
	Type      string   `json:"EventType"`
	Resources []string `json:"Resources"`
	Status    string   `json:"EventStatus"` // Scheduled or Started
	NotBefore string   `json:"NotBefore"`   // as in HTTP; "" once it has started
	Detail    string   `json:"Description"`
}

func parseAzure(text []byte) (*azureAnswer, error) {
	var in struct {
		Events *[]azureEvent `json:"Events"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, fmt.Errorf("scheduled events: %w", err)
	}
	if in.Events == nil {
		return nil, fmt.Errorf("scheduled events: an answer without a list of events")
	}
	for _, e := range *in.Events {
		if _, err := e.time(); err != nil {
			return nil, fmt.Errorf("scheduled events: %w", err)
		}
	}
	return &azureAnswer{*in.Events}, nil
}

// time returns when the event is at the earliest; zero: now.
func (e *azureEvent) time() (time.Time, error) {
	if e.NotBefore == "" {
		return time.Time{}, nil
	}
	return http.ParseTime(e.NotBefore)
}

// notice returns the event that matters most of those that end the machine named name; "" stands for any. A machine
// that only freezes goes on.
func (a *azureAnswer) notice(name string) *Notice {
	var best *Notice
	for _, e := range a.Events {
		what := strings.ToLower(e.Type)
		if !slices.Contains([]string{"preempt", "terminate", "reboot", "redeploy"}, what) ||
			name != "" && len(e.Resources) > 0 && !slices.ContainsFunc(e.Resources, func(r string) bool {
				return strings.EqualFold(r, name)
			}) {
			continue
		}
		at, _ := e.time() // parseAzure has looked at it
		n := &Notice{What: what, Until: at, Guessed: at.IsZero(), Detail: e.Detail}
		if n.Detail == "" {
			n.Detail = "a scheduled event"
		}
		if best == nil || n.Guessed && !best.Guessed || n.Guessed == best.Guessed && n.Until.Before(best.Until) {
			best = n
		}
	}
	return best
}
