package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
)

// TestServerCertificate: it is checked by the system's, by the file of the settings, or by what git says for the URL.
func TestServerCertificate(t *testing.T) {
	f := newForge(t, true)
	ca := f.ca()
	fails(t, f.open(Options{}), "certificate")
	succeeds(t, f.open(Options{TLSCA: ca}))
	fails(t, f.open(Options{TLSCA: filepath.Join(f.dir, "none")}), f.dir+"/none", "no such file")
	empty := secretFile(t, "empty.pem", "nothing\n", 0o644)
	fails(t, f.open(Options{TLSCA: empty}), "empty.pem", "PEM")

	later := filepath.Join(f.dir, "later.pem")
	cert, _, _ := clientCertificate(t, "other")
	check(t, os.WriteFile(later, []byte(read(t, cert)), 0o644))
	r := f.open(Options{TLSCA: later})
	fails(t, r, "certificate")
	check(t, os.WriteFile(later, []byte(read(t, ca)), 0o644))
	succeeds(t, r)

	configure(t, fmt.Sprintf("[http \"%s/\"]\nsslCAInfo = %s\n", f.URL, ca))
	succeeds(t, f.open(Options{}))
	configure(t, fmt.Sprintf("[http \"https://elsewhere.example/\"]\nsslCAInfo = %s\n", ca))
	fails(t, f.open(Options{}), "certificate")
	check(t, os.Rename(ca, filepath.Join(os.Getenv("HOME"), "ca.pem")))
	configure(t, "[http]\nsslCAInfo = ~/ca.pem\n")
	succeeds(t, f.open(Options{}))
	configure(t, "[http]\nsslCAPath = "+os.Getenv("HOME")+"\n")
	succeeds(t, f.open(Options{}))
	configure(t, "")
	t.Setenv("GIT_SSL_CAINFO", filepath.Join(os.Getenv("HOME"), "ca.pem"))
	succeeds(t, f.open(Options{}))
}

// TestUnchecked: http.sslVerify is obeyed, for its URL, and said once.
func TestUnchecked(t *testing.T) {
	f := newForge(t, true)
	configure(t, fmt.Sprintf("[http \"%s\"]\nsslVerify = false\n", f.URL))
	log, hook := logtest.NewNullLogger()
	r := f.open(Options{})
	r.Journal(filepath.Join(f.dir, "journal"), log)
	succeeds(t, r)
	succeeds(t, r)
	if list := hook.AllEntries(); len(list) != 1 || list[0].Level != logrus.WarnLevel ||
		!strings.Contains(list[0].Message, "sslVerify") {
		t.Errorf("logged %v", list)
	}
	configure(t, "[http \"https://elsewhere.example\"]\nsslVerify = false\n")
	fails(t, f.open(Options{}), "certificate")
}

// clientCertificate makes one that signs itself, in two files.
func clientCertificate(t *testing.T, name string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), IsCA: true,
		BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	check(t, err)
	data, err := x509.MarshalPKCS8PrivateKey(private)
	check(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return secretFile(t, "cert.pem", string(text), 0o644),
		secretFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: data})), 0o600), pool
}

// TestClientCertificate: it is shown to a server that wants one, and read anew for each connection.
func TestClientCertificate(t *testing.T) {
	f := newForge(t, true)
	ca := f.ca()
	cert, key, pool := clientCertificate(t, "one")
	f.pass = func(w http.ResponseWriter, r *http.Request) bool {
		if certs := r.TLS.PeerCertificates; len(certs) == 1 {
			if _, err := certs[0].Verify(x509.VerifyOptions{Roots: pool,
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
				return true
			}
		}
		http.Error(w, "no certificate", http.StatusForbidden)
		return false
	}
	fails(t, f.open(Options{TLSCA: ca}), "403", "no certificate")
	o := Options{TLSCA: ca, TLSCert: cert, TLSKey: key}
	r := f.open(o)
	succeeds(t, r)
	both := secretFile(t, "both.pem", read(t, cert)+read(t, key), 0o600)
	succeeds(t, f.open(Options{TLSCA: ca, TLSCert: both}))
	check(t, os.Chmod(key, 0o644))
	fails(t, f.open(o), "key.pem", "chmod 600")
	check(t, os.Chmod(key, 0o600))
	fails(t, f.open(Options{TLSCA: ca, TLSCert: cert, TLSKey: cert}), "chmod 600")
	configure(t, fmt.Sprintf("[http \"%s\"]\nsslCert = %s\nsslKey = %s\nsslCAInfo = %s\n", f.URL, cert, key, ca))
	succeeds(t, f.open(Options{}))

	newCert, newKey, newPool := clientCertificate(t, "two")
	check(t, os.WriteFile(cert, []byte(read(t, newCert)), 0o644))
	check(t, os.WriteFile(key, []byte(read(t, newKey)), 0o600))
	f.mu.Lock()
	pool = newPool
	f.mu.Unlock()
	f.CloseClientConnections()
	succeeds(t, r)
}

// TestCertificateStays: where a redirect leads to does not see ours.
func TestCertificateStays(t *testing.T) {
	f, other := newForge(t, true), newForge(t, true)
	cert, key, _ := clientCertificate(t, "one")
	var shown *tls.ConnectionState
	other.pass = func(_ http.ResponseWriter, r *http.Request) bool {
		shown = r.TLS
		return true
	}
	f.pass = redirect(other, http.StatusFound)
	ca := secretFile(t, "both.pem", read(t, f.ca())+read(t, other.ca()), 0o644)
	succeeds(t, f.open(Options{TLSCA: ca, TLSCert: cert, TLSKey: key}))
	if first := f.requests(); len(first) != 1 || len(first[0].TLS.PeerCertificates) != 1 {
		t.Error("the source did not see the certificate")
	}
	if shown == nil || len(shown.PeerCertificates) != 0 {
		t.Errorf("the other host saw %v", shown)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	return string(data)
}
