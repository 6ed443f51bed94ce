package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DefaultAddress is where a daemon listens unless it is told otherwise.
const DefaultAddress = "127.0.0.1:8500"

// Config says whom to call and how. The zero value calls [DefaultAddress] in the clear.
type Config struct {
	// Address is "host:port", a URL of scheme http or https, or "unix:///path".
	Address    string
	Datacenter string // asked for where a query names none; empty: the daemon's own
	Token      string
	TokenFile  string // read by New when Token is empty
	User       string // of HTTP basic authentication, as proxies in front want it
	Password   string

	UseTLS     bool // for a "host:port" address
	CAFile     string
	CAPath     string // a directory of PEM files
	CertFile   string
	KeyFile    string
	ServerName string
	SkipVerify bool // does not check the daemon's certificate
}

// FromEnv reads the environment variables of Consul's clients, CONSUL_HTTP_ADDR and the
// rest; each may be given as MEIBO_… too, which then wins.
func FromEnv(getenv func(string) string) (Config, error) {
	get := func(name string) string {
		if v := getenv("MEIBO_" + name); v != "" {
			return v
		}
		return getenv("CONSUL_" + name)
	}
	cfg := Config{
		Address: get("HTTP_ADDR"), Token: get("HTTP_TOKEN"), TokenFile: get("HTTP_TOKEN_FILE"),
		CAFile: get("CACERT"), CAPath: get("CAPATH"), CertFile: get("CLIENT_CERT"), KeyFile: get("CLIENT_KEY"),
		ServerName: get("TLS_SERVER_NAME"),
	}
	if auth := get("HTTP_AUTH"); auth != "" {
		cfg.User, cfg.Password, _ = strings.Cut(auth, ":")
	}
	var err error
	if cfg.UseTLS, err = boolOf("HTTP_SSL", get("HTTP_SSL"), false); err != nil {
		return cfg, err
	}
	verify, err := boolOf("HTTP_SSL_VERIFY", get("HTTP_SSL_VERIFY"), true)
	cfg.SkipVerify = !verify
	return cfg, err
}

func boolOf(name, value string, otherwise bool) (bool, error) {
	if value == "" {
		return otherwise, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return otherwise, fmt.Errorf("environment variable CONSUL_%s or MEIBO_%s: %q is neither true nor false", name, name, value)
	}
	return b, nil
}

func (c *Config) isUnix() bool { return strings.HasPrefix(c.Address, "unix://") }

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// endpoint is the URL to call and, for a socket file, how to get there.
func (c *Config) endpoint() (*url.URL, dialFunc, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if path, ok := strings.CutPrefix(c.Address, "unix://"); ok {
		if path == "" {
			return nil, nil, errors.New("the address unix:// has no path")
		}
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
		return &url.URL{Scheme: "http", Host: "localhost"}, dial, nil
	}
	address := c.Address
	if address == "" {
		address = DefaultAddress
	}
	if !strings.Contains(address, "://") {
		scheme := "http://"
		if c.UseTLS {
			scheme = "https://"
		}
		address = scheme + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, nil, fmt.Errorf("address %q: %w", c.Address, err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, nil, fmt.Errorf("address %q: want host:port, http://host:port, https://host:port or unix:///path", c.Address)
	}
	return u, dialer.DialContext, nil
}

func (c *Config) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.SkipVerify}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("a client certificate and its key must be given together")
	}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	files, err := c.authorities()
	if err != nil || len(files) == 0 {
		return t, err
	}
	t.RootCAs = x509.NewCertPool()
	for _, f := range files {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read CA certificate: %w", err)
		}
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA certificate %s holds no certificate in PEM form", f)
		}
	}
	return t, nil
}

func (c *Config) authorities() ([]string, error) {
	var files []string
	if c.CAFile != "" {
		files = append(files, c.CAFile)
	}
	if c.CAPath == "" {
		return files, nil
	}
	entries, err := os.ReadDir(c.CAPath)
	if err != nil {
		return nil, fmt.Errorf("read CA path: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, filepath.Join(c.CAPath, e.Name()))
		}
	}
	return files, nil
}
