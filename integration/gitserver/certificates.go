package gitserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificate is one that was made for a test, with its key.
type certificate struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// certify makes a certificate of what template says, signed by an authority, or by itself without one.
func certify(t testing.TB, template *x509.Certificate, by *certificate) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if by == nil {
		by = &certificate{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &certificate{c, key}
}

// pems are the certificate and its key as PEM files have them.
func (c *certificate) pems(t testing.TB) (public, private string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// makeCertificates makes an authority, and certificates by it for the server and for a client.
func (s *HTTPServer) makeCertificates() {
	s.t.Helper()
	ca := certify(s.t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	server := certify(s.t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca)
	client := certify(s.t, &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "client"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca)
	s.CA, s.ClientCert, s.ClientKey = filepath.Join(s.dir, "ca.pem"), filepath.Join(s.dir, "client.pem"),
		filepath.Join(s.dir, "client.key")
	public, _ := ca.pems(s.t)
	s.as.write(s.t, s.CA, public, 0o644)
	public, private := server.pems(s.t)
	s.as.write(s.t, filepath.Join(s.dir, "server.pem"), public, 0o644)
	s.as.write(s.t, filepath.Join(s.dir, "server.key"), private, 0o600)
	public, private = client.pems(s.t)
	for path, text := range map[string]string{s.ClientCert: public, s.ClientKey: private} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
}
