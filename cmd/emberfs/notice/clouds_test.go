package notice

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"emberfs/integration/metaserver"
)

func serveAWS(t *testing.T) *metaserver.Server {
	s := metaserver.AWS()
	t.Cleanup(s.Close)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", s.URL)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	return s
}

func TestAWS(t *testing.T) {
	s := serveAWS(t)
	w := observe(t, "aws", quick())
	asks(t, s, 6)
	if n := w.board.Current(); n != nil || len(w.board.Problems()) > 0 {
		t.Fatalf("without a notice there is %+v, %q", n, w.board.Problems())
	}
	s.Set(metaserver.AWSRebalance, `{"noticeTime": "2020-10-27T08:22:00Z"}`)
	if n := w.becomes("rebalance"); n.Final() || n.Source != "aws" || n.When.IsZero() {
		t.Errorf("%+v", n)
	}
	s.Set(metaserver.AWSAction, `{"action": "terminate", "time": "2031-09-18T08:22:00Z"}`)
	if n := w.becomes("terminate"); !n.Until.Equal(at(t, "2031-09-18T08:22:00Z")) || n.Guessed {
		t.Errorf("%+v", n)
	}
	s.Unset(metaserver.AWSAction)
	w.becomes("rebalance")
	s.Unset(metaserver.AWSRebalance)
	w.ends()
	s.Set(metaserver.AWSAction, `{"action": "hibernate"}`)
	if n := w.becomes("hibernate"); !n.Guessed || n.Until.Sub(n.When) != Usual {
		t.Errorf("%+v", n)
	}
	tokens, plain := 0, 0
	for _, r := range s.Requests() {
		switch {
		case r.Path == "/latest/api/token":
			tokens++
		case r.Code == http.StatusUnauthorized || r.Method != http.MethodGet:
			plain++
		}
	}
	if tokens != 1 || plain != 0 {
		t.Errorf("%d tokens were asked for, and %d requests were made without one", tokens, plain)
	}
}

// TestAWSTrouble: whatever a server does instead of an answer neither makes a notice nor takes one back, and one log
// line says it.
func TestAWSTrouble(t *testing.T) {
	s := serveAWS(t)
	elsewhere := metaserver.AWS()
	defer elsewhere.Close()
	elsewhere.Fail(metaserver.Status(http.StatusOK, `{"action": "stop", "time": "2031-09-18T08:22:00Z"}`))
	r := quick()
	r.awsPatience = 300 * time.Millisecond
	w := observe(t, "aws", r)
	for _, had := range []string{"", "terminate"} {
		if had != "" {
			s.Set(metaserver.AWSAction, `{"action": "terminate", "time": "2031-09-18T08:22:00Z"}`)
			w.becomes(had)
		}
		for _, c := range []struct {
			name  string
			fault http.HandlerFunc
		}{
			{"unavailable", metaserver.Status(http.StatusServiceUnavailable, "later")},
			{"refused", metaserver.Status(http.StatusUnauthorized, "")},
			{"forbidden", metaserver.Status(http.StatusForbidden, "")},
			{"no tokens", func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet { // IMDSv1, which is not to be used
					_, _ = w.Write([]byte(`{"action": "stop", "time": "2031-09-18T08:22:00Z"}`))
					return
				}
				w.WriteHeader(http.StatusNotFound)
			}},
			{"hanging", s.Hang},
			{"redirecting", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere.URL, http.StatusFound)
			}},
		} {
			s.ForgetTokens()
			s.Fail(c.fault)
			if c.name == "no tokens" {
				// The token that is known is refused first, and then the question for another one.
				s.Fail(metaserver.Status(http.StatusUnauthorized, ""))
				asks(t, s, 4)
				s.Fail(c.fault)
			}
			w.problem("spot/instance-action")
			asks(t, s, 4)
			if n := w.board.Current(); (n == nil) != (had == "") || n != nil && n.What != had {
				t.Errorf("%s: the notice is %+v, it was %q", c.name, n, had)
			}
			s.Fail(nil)
			w.problem("")
		}
		for _, text := range []string{"", "garbage", "{}", `{"action":"dance","time":"2031-09-18T08:22:00Z"}`,
			`{"action":"terminate","time":"tomorrow"}`,
			strings.Repeat(" ", mostAnswer) + `{"action":"stop","time":"2031-09-18T08:22:00Z"}`} {
			s.Set(metaserver.AWSAction, text)
			w.problem("instance-action")
			if n := w.board.Current(); (n == nil) != (had == "") || n != nil && n.What != had {
				t.Errorf("%.20q: the notice is %+v, it was %q", text, n, had)
			}
			s.Unset(metaserver.AWSAction)
			if had != "" {
				s.Set(metaserver.AWSAction, `{"action": "terminate", "time": "2031-09-18T08:22:00Z"}`)
			}
			w.problem("")
		}
	}
	// A token that the server has forgotten is replaced without anybody's noticing.
	w.logs.Reset()
	s.ForgetTokens()
	asks(t, s, 6)
	for _, e := range w.logs.AllEntries() {
		if e.Level <= logrus.WarnLevel {
			t.Errorf("a forgotten token is a problem: %s %v", e.Message, e.Data)
		}
	}
	s.Fail(s.Hang) // and a server that hangs is no reason not to end
}

func TestAWSDisabled(t *testing.T) {
	s := serveAWS(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	w := observe(t, "aws", quick())
	time.Sleep(100 * time.Millisecond)
	if n := len(s.Requests()); n > 0 || len(w.logs.AllEntries()) != 2 {
		t.Errorf("%d requests, %d log lines", n, len(w.logs.AllEntries()))
	}
}

func serveGCP(t *testing.T) *metaserver.Server {
	s := metaserver.GCP()
	t.Cleanup(s.Close)
	t.Setenv("GCE_METADATA_HOST", s.Host())
	return s
}

func TestGCP(t *testing.T) {
	s := serveGCP(t)
	w := observe(t, "gcp", quick())
	asked(t, s, 4) // two answers at once, and two questions that stay open
	time.Sleep(200 * time.Millisecond)
	if n := len(s.Requests()); n != 4 || w.board.Current() != nil {
		t.Fatalf("%d requests, %+v", n, w.board.Current())
	}
	for i, r := range s.Requests() { // by the tag no change between two questions is missed
		open := r.Query.Get("wait_for_change") == "true" && r.Query.Get("timeout_sec") == "60" &&
			len(r.Query.Get("last_etag")) > 1
		if open != (r.Code == 0) {
			t.Errorf("request %d: %+v", i, r)
		}
	}
	began := time.Now()
	s.Set(metaserver.GCPPreempted, "TRUE")
	n := w.becomes("preempt")
	if took := time.Since(began); took > time.Second {
		t.Errorf("the notice takes %v", took)
	}
	if n.Source != "gcp" || !n.Guessed || n.Until.Sub(n.When) != Usual || n.When.Before(began) {
		t.Errorf("%+v", n)
	}
	s.Set(metaserver.GCPMaintenance, "TERMINATE_ON_HOST_MAINTENANCE") // later than the other one
	asks(t, s, 1)
	s.Set(metaserver.GCPPreempted, "FALSE")
	w.becomes("maintenance")
	s.Set(metaserver.GCPMaintenance, "MIGRATE_ON_HOST_MAINTENANCE")
	w.ends()
	s.Set(metaserver.GCPPreempted, "TRUE")
	w.becomes("preempt")
	s.Unset(metaserver.GCPPreempted)
	w.ends()
}

func TestGCPTrouble(t *testing.T) {
	s := serveGCP(t)
	s.Set(metaserver.GCPPreempted, "TRUE")
	r := quick()
	r.gcpPatience = 500 * time.Millisecond
	w := observe(t, "gcp", r)
	w.becomes("preempt")
	for _, c := range []struct {
		problem string
		fault   http.HandlerFunc
	}{
		{"503", metaserver.Status(http.StatusServiceUnavailable, "")},
		{"403", metaserver.Status(http.StatusForbidden, "")},
		{"unknown value", metaserver.Status(http.StatusOK, "garbage")},
		{"unknown value", metaserver.Status(http.StatusOK, strings.Repeat("x", 1<<20))},
		{"deadline", s.Hang},
	} {
		s.Fail(c.fault)
		s.Set(metaserver.GCPPreempted, "TRUE ") // ends the questions that are open
		s.Set(metaserver.GCPMaintenance, "NONE ")
		w.problem("instance/preempted")
		if n := w.board.Current(); n == nil || n.What != "preempt" {
			t.Errorf("%s: the notice is %+v", c.problem, n)
		}
		s.Fail(nil)
		s.Set(metaserver.GCPPreempted, "TRUE")
		w.problem("")
	}
	s.Set(metaserver.GCPPreempted, "FALSE")
	w.ends()
}

// TestGCPPace: a server that does not keep questions open is not asked without end.
func TestGCPPace(t *testing.T) {
	s := serveGCP(t)
	s.Fail(metaserver.Status(http.StatusOK, "FALSE"))
	r := quick()
	r.gcp = 200 * time.Millisecond
	observe(t, "gcp", r)
	time.Sleep(time.Second)
	if n := len(s.Requests()); n < 4 || n > 2*(gcpBurst+7) {
		t.Errorf("%d requests in a second", n)
	}
}

func serveAzure(t *testing.T) *metaserver.Server {
	s := metaserver.Azure("vm-1")
	t.Cleanup(s.Close)
	t.Setenv(azureEndpoint, s.URL)
	return s
}

func TestAzure(t *testing.T) {
	s := serveAzure(t)
	w := observe(t, "azure", quick())
	asks(t, s, 3)
	const when = "Mon, 19 Sep 2033 18:29:47 GMT"
	for _, other := range []string{metaserver.AzureEvent("Freeze", "vm-1", when),
		metaserver.AzureEvent("Preempt", "vm-2", when)} {
		s.Set(metaserver.AzureEvents, other)
		asks(t, s, 3)
		if n := w.board.Current(); n != nil || len(w.board.Problems()) > 0 {
			t.Errorf("%s: %+v, %q", other, n, w.board.Problems())
		}
	}
	for _, kind := range []string{"Preempt", "Terminate", "Reboot", "Redeploy"} {
		s.Set(metaserver.AzureEvents, metaserver.AzureEvent(kind, "VM-1", when))
		n := w.becomes(strings.ToLower(kind))
		if !n.Until.Equal(at(t, "2033-09-19T18:29:47Z")) || n.Source != "azure" ||
			n.Detail != "Host server is undergoing maintenance." {
			t.Errorf("%+v", n)
		}
		s.Set(metaserver.AzureEvents, metaserver.AzureEvent(kind, "vm-1", "")) // it begins
		w.until("begun", func(n *Notice) bool { return n != nil && n.Guessed && time.Until(n.Until) <= Usual })
		s.Set(metaserver.AzureEvents, `{"DocumentIncarnation":3,"Events":[]}`)
		w.ends()
	}
	names := 0
	for _, r := range s.Requests() {
		if r.Method != http.MethodGet || r.Code != http.StatusOK {
			t.Errorf("%+v", r)
		}
		if r.Path == metaserver.AzureName {
			names++
		}
	}
	if names != 1 {
		t.Errorf("the name was asked for %d times", names)
	}
}

// TestAzureNameless: where the server does not tell the machine's name all events count as its own, and one line says
// so.
func TestAzureNameless(t *testing.T) {
	s := serveAzure(t)
	s.Unset(metaserver.AzureName)
	s.Set(metaserver.AzureEvents, metaserver.AzureEvent("Preempt", "vm-2", "Mon, 19 Sep 2033 18:29:47 GMT"))
	w := observe(t, "azure", quick())
	w.becomes("preempt")
	asks(t, s, 8)
	w.problem("azure compute/name")
	warned := 0
	for _, e := range w.logs.AllEntries() {
		if e.Level == logrus.WarnLevel {
			warned++
		}
	}
	if warned != 1 {
		t.Errorf("there are %d warnings in the log", warned)
	}
	s.Set(metaserver.AzureName, "vm-1")
	w.ends()
	w.problem("")
}

func TestAzureTrouble(t *testing.T) {
	s := serveAzure(t)
	const event = "Mon, 19 Sep 2033 18:29:47 GMT"
	s.Set(metaserver.AzureEvents, metaserver.AzureEvent("Preempt", "vm-1", event))
	r := quick()
	r.azurePatience = 300 * time.Millisecond
	w := observe(t, "azure", r)
	w.becomes("preempt")
	for name, fault := range map[string]http.HandlerFunc{
		"503": metaserver.Status(http.StatusServiceUnavailable, ""), "404": metaserver.Status(http.StatusNotFound, ""),
		"429":     metaserver.Status(http.StatusTooManyRequests, ""),
		"garbage": metaserver.Status(http.StatusOK, "garbage"),
		"no list": metaserver.Status(http.StatusOK, "{}"), "hanging": s.Hang,
		"a bad time": metaserver.Status(http.StatusOK, metaserver.AzureEvent("Preempt", "vm-1", "soon")),
		"too much":   metaserver.Status(http.StatusOK, strings.Repeat(" ", 1<<20)),
	} {
		s.Fail(fault)
		w.problem("scheduledevents")
		if n := w.board.Current(); n == nil || n.What != "preempt" {
			t.Errorf("%s: the notice is %+v", name, n)
		}
		s.Fail(nil)
		w.problem("")
	}
	s.Set(metaserver.AzureEvents, `{"DocumentIncarnation":3,"Events":[]}`)
	w.ends()
}
