package notice

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"emberfs/integration/metaserver"
)

// quick is a rhythm for tests.
func quick() rhythm {
	return rhythm{aws: 20 * time.Millisecond, awsPatience: time.Second, gcp: 20 * time.Millisecond,
		gcpHang: time.Minute, gcpPatience: time.Minute,
		azure: 20 * time.Millisecond, azureFirst: time.Second, azurePatience: time.Second,
		azureRest: 20 * time.Millisecond, file: 10 * time.Millisecond, command: 20 * time.Millisecond,
		commandPatience: 5 * time.Second}
}

func newLog() (logrus.FieldLogger, *logtest.Hook) {
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	return log, hook
}

// watched is a watcher under test. At the end of the test it is stopped, and nothing of it may be left.
type watched struct {
	t     *testing.T
	board *Board
	logs  *logtest.Hook

	mu   sync.Mutex
	told []*Notice // what the board told of
}

func observe(t *testing.T, spec string, r rhythm) *watched {
	t.Helper()
	s, err := Parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t}
	w.board = NewBoard(func(n *Notice) {
		w.mu.Lock()
		w.told = append(w.told, n)
		w.mu.Unlock()
	})
	log, hook := newLog()
	w.logs = hook
	watcher := start(Options{Spec: s, Board: w.board, Log: log}, t.TempDir(), r)
	t.Cleanup(func() {
		began := time.Now()
		watcher.Stop()
		if took := time.Since(began); took > stopGrace/2 {
			t.Errorf("it ends after %v", took)
		}
		noneLeft(t)
	})
	return w
}

// noneLeft fails the test if goroutines of a watcher, or connections of its client, are left.
func noneLeft(t *testing.T) {
	t.Helper()
	var left string
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		left = string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(left, "notice.watch") && !strings.Contains(left, "notice.each") &&
			!strings.Contains(left, "http.(*persistConn)") {
			return
		}
	}
	t.Errorf("goroutines are left:\n%s", left)
}

// until waits for a notice that what says yes to.
func (w *watched) until(what string, yes func(*Notice) bool) *Notice {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if n := w.board.Current(); yes(n) {
			return n
		}
	}
	w.t.Fatalf("%s: the notice is %+v, problems %q", what, w.board.Current(), w.board.Problems())
	return nil
}

func (w *watched) becomes(what string) *Notice {
	w.t.Helper()
	return w.until(what, func(n *Notice) bool { return n != nil && n.What == what })
}

func (w *watched) ends() {
	w.t.Helper()
	w.until("withdrawn", func(n *Notice) bool { return n == nil })
}

// problem waits until there is a problem that names text, or none where text is "".
func (w *watched) problem(text string) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		p := strings.Join(w.board.Problems(), "; ")
		if text == "" && p == "" || text != "" && strings.Contains(p, text) {
			return
		}
	}
	w.t.Fatalf("the problems are %q, want %q", w.board.Problems(), text)
}

// asks waits until the server was asked n times more.
func asks(t *testing.T, s *metaserver.Server, n int) {
	t.Helper()
	asked(t, s, len(s.Requests())+n)
}

// asked waits until the server was asked n times in all.
func asked(t *testing.T, s *metaserver.Server, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if len(s.Requests()) >= n {
			return
		}
	}
	t.Fatalf("the server was asked %d times, want %d", len(s.Requests()), n)
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	x, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestDetect: the cloud that the firmware names is watched, and on any other machine nobody is asked.
func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"Nitro", map[string]string{"sys_vendor": "Amazon EC2\n", "product_name": "m5.large\n"}, AWS},
		{"Xen", map[string]string{"sys_vendor": "Xen\n", "bios_version": "4.11.amazon\n"}, AWS},
		{"Google", map[string]string{"sys_vendor": "Google\n", "product_name": "Google Compute Engine\n"}, GCP},
		{"Azure", map[string]string{"sys_vendor": "Microsoft Corporation\n", "product_name": "Virtual Machine\n",
			"chassis_asset_tag": azureTag + "\n"}, Azure},
		{"Hyper-V", map[string]string{"sys_vendor": "Microsoft Corporation\n", "product_name": "Virtual Machine\n"},
			None},
		{"a Chromebook", map[string]string{"sys_vendor": "Google\n", "product_name": "Eve\n"}, None},
		{"Xen at home", map[string]string{"sys_vendor": "Xen\n", "bios_version": "4.11\n"}, None},
		{"nothing", nil, None},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := detect(dir); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	all := []*metaserver.Server{serveAWS(t), serveGCP(t), serveAzure(t)}
	w := observe(t, "auto", quick()) // in an empty directory
	time.Sleep(100 * time.Millisecond)
	for _, s := range all {
		if n := len(s.Requests()); n > 0 {
			t.Errorf("on a machine in no cloud a server got %d requests", n)
		}
	}
	if n := len(w.logs.AllEntries()); n > 0 {
		t.Errorf("on a machine in no cloud there are %d log lines", n)
	}
}

func TestNoticeJSON(t *testing.T) {
	n := Notice{What: "stop", Source: "aws", When: at(t, "2026-11-30T18:00:00+01:00"), Detail: "why"}
	for want, until := range map[string]time.Time{
		`null`: {}, `"2026-11-30T17:02:00.250Z"`: at(t, "2026-11-30T17:02:00.25Z"),
	} {
		n.Until = until
		got, err := json.Marshal(n)
		if err != nil || string(got) != `{"what":"stop","source":"aws","when":"2026-11-30T17:00:00.000Z","until":`+want+
			`,"guessed":false,"detail":"why"}` {
			t.Errorf("%s, %v", got, err)
		}
		var back Notice
		if err := json.Unmarshal(got, &back); err != nil || !back.same(&n) || !back.When.Equal(n.When) {
			t.Errorf("%+v, %v", back, err)
		}
	}
}

// TestHTTP: a metadata server is asked directly, whatever proxy the environment names for others.
func TestHTTP(t *testing.T) {
	client, idle := newHTTP()
	defer idle()
	if transport := client.Transport.(bounded).RoundTripper.(*http.Transport); transport.Proxy != nil {
		t.Error("it uses a proxy")
	}
}
