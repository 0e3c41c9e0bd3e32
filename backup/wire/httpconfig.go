package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/net/http/httpproxy"
)

// httpSettings are what the options, git's variables and git's configuration say of requests to one repository, in this
// order.
type httpSettings struct {
	caFile, caDir string   // "": the system's
	cert, key     string   // files; "": no client certificate
	guarded       bool     // the key is named by us, not by git: others must not be able to read it
	insecure      bool     // certificates of servers are not checked
	proxy         string   // "": what the variables say
	direct        bool     // no proxy, whatever the variables say
	headers       []string // NAME: VALUE, for the source's origin alone; secrets
	userAgent     string
}

// readHTTP asks git's configuration.
func readHTTP(ctx context.Context, o *Options, at *url.URL) (*httpSettings, error) {
	values, headers, err := httpEntries(ctx, at.String())
	if err != nil {
		return nil, err
	}
	first := func(option, variable, key string) string {
		if option != "" {
			return option
		}
		if v := os.Getenv(variable); v != "" {
			return v
		}
		return expand(values[key])
	}
	s := &httpSettings{
		caFile: first(o.TLSCA, "GIT_SSL_CAINFO", "sslcainfo"), caDir: first("", "GIT_SSL_CAPATH", "sslcapath"),
		cert: first(o.TLSCert, "GIT_SSL_CERT", "sslcert"), key: first(o.TLSKey, "GIT_SSL_KEY", "sslkey"),
		userAgent: first("", "GIT_HTTP_USER_AGENT", "useragent"), headers: headers, proxy: o.Proxy,
	}
	if o.TLSCA != "" {
		s.caDir = ""
	}
	if o.TLSCert != "" {
		s.key, s.guarded = o.TLSKey, true
	}
	if s.key == "" {
		s.key = s.cert // both may be in one file, as for curl
	}
	if s.userAgent == "" {
		s.userAgent = userAgent
	}
	if v, ok := values["sslverify"]; ok && !isTrue(v) {
		s.insecure = true
	}
	if v, ok := os.LookupEnv("GIT_SSL_NO_VERIFY"); ok && isTrue(v) {
		s.insecure = true
	}
	if v, ok := values["proxy"]; ok && s.proxy == "" {
		s.proxy, s.direct = v, v == ""
	}
	return s, nil
}

// httpConfig is how requests are made, until the settings change.
type httpConfig struct {
	httpSettings
	home  string       // the source's origin
	own   *http.Client // for it
	other *http.Client // for where a redirect leads: it has no certificate of ours
}

// newHTTPConfig makes the clients, and reads the files that the settings name.
func newHTTPConfig(s *httpSettings, home string, log logrus.FieldLogger) (*httpConfig, error) {
	roots, err := s.roots()
	if err != nil {
		return nil, err
	}
	proxy, err := s.proxies()
	if err != nil {
		return nil, err
	}
	client := func(own bool) *http.Client {
		tlsConfig := &tls.Config{RootCAs: roots, InsecureSkipVerify: s.insecure}
		if own && s.cert != "" {
			// It is read for each connection: one that was renewed counts at once.
			tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return s.certificate()
			}
		}
		dial := &net.Dialer{Timeout: httpIdle, KeepAlive: aliveEvery * time.Second}
		return &http.Client{
			Transport: &http.Transport{Proxy: proxy, DialContext: dial.DialContext, TLSClientConfig: tlsConfig,
				TLSHandshakeTimeout: httpIdle, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 2,
				IdleConnTimeout: 90 * time.Second, OnProxyConnectResponse: proxyAnswer},
			// Redirects are followed by discover alone.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	if s.cert != "" {
		if _, err := s.certificate(); err != nil {
			return nil, err
		}
	}
	if s.insecure {
		log.Warnf("%s: git's configuration (http.sslVerify) has the server's certificate not checked: anybody on the "+
			"way can read and change what is sent", home)
	}
	return &httpConfig{httpSettings: *s, home: home, own: client(true), other: client(false)}, nil
}

// client is the one for the origin of a URL.
func (c *httpConfig) client(u *url.URL) *http.Client {
	if originOf(u) == c.home {
		return c.own
	}
	return c.other
}

// dress puts the headers of the settings into a request. Those that may be secrets are for the source's origin alone.
func (c *httpConfig) dress(req *http.Request) {
	req.Header.Set("User-Agent", c.userAgent)
	if originOf(req.URL) != c.home {
		return
	}
	for _, h := range c.headers {
		if name, value, ok := strings.Cut(h, ":"); ok {
			req.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
}

func (c *httpConfig) closeIdle() {
	c.own.CloseIdleConnections()
	c.other.CloseIdleConnections()
}

func (c *httpConfig) equal(s *httpSettings) bool { return reflect.DeepEqual(c.httpSettings, *s) }

// roots are the certificates that servers are checked by; nil: the system's.
func (s *httpSettings) roots() (*x509.CertPool, error) {
	var files []string
	if s.caDir != "" {
		list, err := os.ReadDir(s.caDir)
		if err != nil {
			return nil, fmt.Errorf("certificates of servers: %w", err)
		}
		for _, f := range list {
			if !f.IsDir() {
				files = append(files, filepath.Join(s.caDir, f.Name()))
			}
		}
	}
	if s.caFile == "" && len(files) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil {
			pool.AppendCertsFromPEM(data) // other files may lie there
		}
	}
	if s.caFile != "" {
		data, err := os.ReadFile(s.caFile)
		if err != nil {
			return nil, fmt.Errorf("certificates of servers: %w", err)
		}
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("certificates of servers: %s has none (PEM is wanted)", s.caFile)
		}
	}
	return pool, nil
}

// certificate reads the one that we show.
func (s *httpSettings) certificate() (*tls.Certificate, error) {
	chain, err := os.ReadFile(s.cert)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	key, err := readSecretFile(s.key, s.guarded)
	if err != nil {
		return nil, fmt.Errorf("key of the client certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with the key %s: %w", s.cert, s.key, err)
	}
	return &pair, nil
}

// ErrProxy says that a text names no proxy. It does not repeat the text, which may have a password in it.
var ErrProxy = errors.New("a proxy is named as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")

// ErrProxyPassword says that a proxy has a password in it, where process lists and logs would show it.
var ErrProxyPassword = errors.New("the proxy has a password in it, which process lists and logs would show; " +
	"git's http.proxy and the environment variable https_proxy may have one")

// CheckProxy says what is wrong with the name of a proxy, without repeating it: ErrProxy, ErrProxyPassword.
func CheckProxy(text string) error {
	u, err := parseProxy(text)
	if err != nil {
		return err
	}
	if _, has := u.User.Password(); has {
		return ErrProxyPassword
	}
	return nil
}

// parseProxy reads the name of a proxy; without a scheme it is http.
func parseProxy(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" {
		return nil, ErrProxy
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return u, nil
	}
	return nil, ErrProxy
}

// proxies says which proxy a request takes. One that was named is taken for hosts of this machine too.
func (s *httpSettings) proxies() (func(*http.Request) (*url.URL, error), error) {
	if s.direct {
		return nil, nil
	}
	env := httpproxy.FromEnvironment()
	if s.proxy != "" {
		env.HTTPProxy, env.HTTPSProxy = s.proxy, s.proxy
	} else {
		all := os.Getenv("all_proxy")
		if all == "" {
			all = os.Getenv("ALL_PROXY")
		}
		if env.HTTPProxy == "" {
			env.HTTPProxy = all
		}
		if env.HTTPSProxy == "" {
			env.HTTPSProxy = all
		}
	}
	for _, p := range []string{env.HTTPProxy, env.HTTPSProxy} {
		if p != "" {
			if _, err := parseProxy(p); err != nil {
				return nil, err
			}
		}
	}
	choose := env.ProxyFunc()
	named := s.proxy
	return func(req *http.Request) (*url.URL, error) {
		if named != "" && env.NoProxy == "" {
			return parseProxy(named)
		}
		return choose(req.URL)
	}, nil
}

// proxyAnswer keeps the state of a proxy that does not connect, which net/http would make a text of.
func proxyAnswer(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return fmt.Errorf("the proxy does not connect: %w", &StatusError{Code: answer.StatusCode})
}
