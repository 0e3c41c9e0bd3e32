//go:build slow

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"emberfs/integration/gitserver"
)

// TestNetClientCertificate: a server of an authority of its own, which lets nobody in without a certificate. All of it
// is in git's configuration, for this server alone. Without the authority, and without a certificate, nothing is
// fetched or made.
func TestNetClientCertificate(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	s := gitserver.HTTP(t, serverDir(t), gitserver.HTTPOptions{BodyLimit: "0", TLS: true, NoPush: true})
	configured := func(name, lines string) string {
		t.Helper()
		file := filepath.Join(testDir(t), name)
		check(t, os.WriteFile(file, fmt.Appendf(nil, "[http \"https://%s/\"]\n%s", s.Addr(), lines), 0o600))
		return "GIT_CONFIG_GLOBAL=" + file
	}
	authority := "\tsslCAInfo = " + s.CA + "\n"
	certificate := "\tsslCert = " + s.ClientCert + "\n\tsslKey = " + s.ClientKey + "\n"
	for name, lines := range map[string]string{"no authority": certificate, "no certificate": authority} {
		v := newVolume(t, name, withSource(s.Source()), withEnv(configured(name+".config", lines)))
		if r := v.tryMount(); r.code != 32 || r.took > 30*time.Second {
			t.Errorf("%s: want exit 32 soon\n%v", name, r)
		}
	}
	s.Env = append(s.Env, configured("config", authority+certificate))
	roundTrip(t, s.Server)
}
