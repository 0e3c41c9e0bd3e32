package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"emberfs/backup/wire"
)

// TestRemoteSettings: they come to package wire from all places, through the daemon's JSON too.
func TestRemoteSettings(t *testing.T) {
	dir := must(filepath.EvalSymlinks(t.TempDir()))(t)
	t.Chdir(dir)
	file := write(t, dir, "c.yaml", "tls_ca: ca.pem\nsshKey: keys/id\nhost_key_check: accept-new\n")
	c, err := resolve("mount", layer{"token": {value: "file:/run/token", where: "--token"}},
		layer{"proxy": {value: "http://proxy:3128", where: "-o proxy"}},
		[]string{"EMBERFS_CONFIG=" + file, "EMBERFS_REMOTE_USER=git", "EMBERFS_KNOWN_HOSTS=/etc/known",
			"EMBERFS_TLS_CERT=c", "EMBERFS_TLS_KEY=/k", "EMBERFS_TOKEN=s3cret"})
	noError(t, err)
	data := must(json.Marshal(c))(t)
	if strings.Contains(string(data), "s3cret") {
		t.Errorf("the daemon is given %s", data)
	}
	there := new(config)
	noError(t, json.Unmarshal(data, there))
	want := wire.Options{User: "git", Token: "file:/run/token", TLSCA: dir + "/ca.pem", TLSCert: dir + "/c",
		TLSKey: "/k", Proxy: "http://proxy:3128", SSHKey: dir + "/keys/id", KnownHosts: "/etc/known", AcceptNew: true}
	if got := remoteOptions(there); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	c, err = resolve("mount", nil, nil, []string{"EMBERFS_TOKEN=s3cret"})
	if err != nil || !reflect.DeepEqual(remoteOptions(c), wire.Options{}) {
		t.Errorf("by default: %+v, %v", c, err)
	}
	for _, ref := range []string{"env:KEY", "credential:key", "file:/k"} {
		s, _ := findSetting("ssh_key")
		if got, err := s.canonical(ref); err != nil || got != ref {
			t.Errorf("%s: %q, %v", ref, got, err)
		}
	}
}

// TestSecretsAreNotRepeated: a secret where its place should be is a usage error that does not show it.
func TestSecretsAreNotRepeated(t *testing.T) {
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	noError(t, os.Mkdir(mnt, 0o755))
	for name, args := range map[string][]string{
		"token":             {"--token", "s3cret"},
		"token, option":     {"-o", "token=s3cret"},
		"token, misspelled": {"-o", "tokn=s3cret"},
		"token, relative":   {"--token", "file:s3cret"},
		"token, YAML":       {"--config", write(t, dir, "a.yaml", "token: s3cret\n")},
		"token, two lines":  {"--token", "env:A\ns3cret"},
		"proxy":             {"--proxy", "http://u:s3cret@h:1"},
		"proxy, option":     {"-o", "proxy=http://u:s3cret@h:1"},
		"proxy, bad":        {"--proxy", "http://u:s3 cret@s3cret"},
		"key":               {"--ssh-key", "-----BEGIN OPENSSH PRIVATE KEY-----\ns3cret\n"},
		"key, colon":        {"--ssh-key", "x:s3cret"},
		"source, YAML":      {"--config", write(t, dir, "b.yaml", "source: https://u:s3cret@h/x\n")},
	} {
		code, out, err := emberfs(t, append([]string{"mount", mnt, "--state", filepath.Join(dir, "state")}, args...)...)
		if code != exitUsage || strings.Contains(out+err, "s3cret") || err == "" {
			t.Errorf("%s: code %d, %s%s", name, code, out, err)
		}
	}
}
