package gitserver

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// HTTPOptions say how nginx differs from what Debian sets up.
type HTTPOptions struct {
	// BodyLimit is the longest request that is taken, as nginx has it; "": nginx's own of 1 MiB; "0": any.
	BodyLimit string
	// User and Password are asked of clients by basic authentication; "": nobody is asked.
	User, Password string
	// TLS encrypts, and lets only clients with a certificate of the server's authority in.
	TLS bool
	// NoPush leaves pushes without an account refused, as git-http-backend has it.
	NoPush bool
}

// HTTPServer is nginx with git-http-backend behind fcgiwrap.
type HTTPServer struct {
	*Server
	// CA, ClientCert and ClientKey are PEM files of a client of a server with TLS.
	CA, ClientCert, ClientKey string

	options HTTPOptions
	gateway net.Listener // of fcgiwrap
}

// HTTP starts nginx with git-http-backend.
func HTTP(t testing.TB, dir string, o HTTPOptions) *HTTPServer {
	t.Helper()
	s := &HTTPServer{Server: newServer(t, dir, gitAccount(t)), options: o}
	scheme := "http"
	if o.TLS {
		scheme = "https"
		s.makeCertificates()
	}
	s.source = func(port int) string {
		return fmt.Sprintf("%s://127.0.0.1:%d/%s", scheme, port, filepath.Base(s.Repo))
	}
	if !o.NoPush {
		s.Git("config", "http.receivepack", "true")
	}
	var err error
	if s.gateway, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.gateway.Close() })
	s.as.mkdir(t, filepath.Join(dir, "tmp"))
	s.SetPassword(o.Password)
	s.as.write(t, s.config(), s.nginx(), 0o644)
	// nginx is started after fcgiwrap, and ended after it: nothing that was begun is left without an answer for long.
	s.launches = append(s.launches, func() (*program, error) {
		in, err := s.gateway.(*net.TCPListener).File()
		if err != nil {
			return nil, err
		}
		defer in.Close()
		return launch(s.as, s.said(), in, lookPath(t, "fcgiwrap"), "-c", "10")
	})
	s.add(s.port, lookPath(t, "nginx"), "-c", s.config(), "-e", filepath.Join(dir, "nginx.log"))
	s.Start()
	return s
}

func (s *HTTPServer) config() string { return filepath.Join(s.dir, "nginx.conf") }

// SetPassword changes what the server asks of clients; it counts at once.
func (s *HTTPServer) SetPassword(password string) {
	s.t.Helper()
	fresh := filepath.Join(s.dir, "passwords.new")
	s.as.write(s.t, fresh, s.options.User+":{PLAIN}"+password+"\n", 0o600)
	if err := os.Rename(fresh, filepath.Join(s.dir, "passwords")); err != nil {
		s.t.Fatal(err)
	}
}

// nginx is its configuration: Debian's, but for where its files are, and the location that git-http-backend(1) gives.
func (s *HTTPServer) nginx() string {
	var server []string
	listen := fmt.Sprintf("listen 127.0.0.1:%d", s.port)
	if s.options.TLS {
		listen += " ssl"
		server = append(server, "ssl_certificate "+s.dir+"/server.pem;",
			"ssl_certificate_key "+s.dir+"/server.key;", "ssl_client_certificate "+s.CA+";", "ssl_verify_client on;")
	}
	server = append(server, listen+";")
	if s.options.BodyLimit != "" {
		server = append(server, "client_max_body_size "+s.options.BodyLimit+";")
	}
	var location []string
	if s.options.User != "" {
		location = append(location, `auth_basic "git";`, "auth_basic_user_file "+s.dir+"/passwords;")
	}
	if s.options.TLS { // Debian's file sets it too; the first one counts
		location = append(location, "fastcgi_param REMOTE_USER $ssl_client_s_dn;")
	}
	location = append(location, "include /etc/nginx/fastcgi_params;",
		"fastcgi_param SCRIPT_FILENAME "+gitProgram(s.t, "git-http-backend")+";",
		"fastcgi_param GIT_PROJECT_ROOT "+s.dir+";", `fastcgi_param GIT_HTTP_EXPORT_ALL "";`,
		"fastcgi_param PATH_INFO $uri;", "fastcgi_pass "+s.gateway.Addr().String()+";")
	var temporary []string
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary = append(temporary, fmt.Sprintf("%s_temp_path %s/tmp/%s;", kind, s.dir, kind))
	}
	return fmt.Sprintf("daemon off;\npid %s/nginx.pid;\nworker_processes 2;\nevents { worker_connections 768; }\n"+
		"http {\nsendfile on;\ntcp_nopush on;\naccess_log off;\n%s\nserver {\n%s\nlocation ~ ^/repo.git/ {\n%s\n}\n}\n}\n",
		s.dir, strings.Join(temporary, "\n"), strings.Join(server, "\n"), strings.Join(location, "\n"))
}
