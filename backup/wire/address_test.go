package wire

import (
	"strings"
	"testing"
)

// TestAddresses: sources are read as git reads them, and what could be read as another repository is refused.
func TestAddresses(t *testing.T) {
	for source, want := range map[string]address{
		"git@[::1]:repo.git":            {scheme: "ssh", user: "git", host: "::1", path: "repo.git"},
		"[::1]:repo.git":                {scheme: "ssh", host: "::1", path: "repo.git"},
		"[h:2222]:repo.git":             {scheme: "ssh", host: "h", port: 2222, path: "repo.git"},
		"u@h:a b.git":                   {scheme: "ssh", user: "u", host: "h", path: "a b.git"},
		"ssh://u@[::1]:22/~v/x.git":     {scheme: "ssh", user: "u", host: "::1", port: 22, path: "~v/x.git"},
		"https://h/a%23b.git":           {scheme: "https", host: "h", path: "/a#b.git"},
		"git://h:9419/x.git":            {scheme: "git", host: "h", port: 9419, path: "/x.git"},
		"ssh://h/srv/with%20blank.git/": {scheme: "ssh", host: "h", path: "/srv/with blank.git/"},
	} {
		a, err := parse(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if a.url = nil; *a != want {
			t.Errorf("%s: %+v, want %+v", source, *a, want)
		}
	}
	for _, source := range []string{"ssh://h/srv/a#1.git", "ssh://h/srv/a?b.git", "https://h/a?private_token=s3cret",
		"git://h/a#b", "ssh://-h/x", "-h:x", "ssh://h", "ftp://h/x", "https:///x", "u@h:", "ssh://h:x/y"} {
		if _, err := parse(source); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", source, err)
		}
	}
}
