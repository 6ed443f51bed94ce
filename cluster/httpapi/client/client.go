// Package client speaks Consul's HTTP API v1 to a daemon: the one of this host, or any
// other that answers. Commands, watches and hosts use it.
//
// A [Client] does what it is told once: it does not retry, cache or follow leaders. Typed
// calls cover the endpoints that exist; [Client.Do] covers the rest. Answers are values
// of cluster/catalog, owned by the caller.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what one answer may take of memory: a catalog of 100,000 instances is
// some 100 MB.
const maxAnswer = 1 << 30

// Client calls one daemon. Safe for concurrent use.
type Client struct {
	base  *url.URL
	http  *http.Client
	cfg   Config
	token string
}

// New checks the configuration and reads the files it names. It connects to nobody.
func New(cfg Config) (*Client, error) {
	base, dial, err := cfg.endpoint()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	c := &Client{base: base, cfg: cfg, token: cfg.Token}
	if c.token == "" && cfg.TokenFile != "" {
		data, err := os.ReadFile(cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read token file: %w", err)
		}
		c.token = strings.TrimSpace(string(data))
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:         dial,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     time.Minute,
		ForceAttemptHTTP2:   true,
	}}
	return c, nil
}

// Close closes idle connections. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Address is where the client calls, for messages.
func (c *Client) Address() string {
	if c.cfg.isUnix() {
		return c.cfg.Address
	}
	return c.base.String()
}

// IsLocal reports whether the daemon is on this host: over a socket file or loopback.
func (c *Client) IsLocal() bool {
	host := c.base.Hostname()
	ip, err := netip.ParseAddr(host)
	return c.cfg.isUnix() || host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// Error is an answer that is not a success.
type Error struct {
	Method, Path string
	Status       int
	Text         string // what the daemon says, without a final newline
}

// Error implements error.
func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("%s %s: %d %s", e.Method, e.Path, e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("%s %s: %s (%d)", e.Method, e.Path, e.Text, e.Status)
}

// IsNotFound reports whether err is a 404.
func IsNotFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// Query is what a read asks for. The zero value, and nil, ask for all, now.
type Query struct {
	Datacenter string        // empty: the client's, else the daemon's
	Index      uint64        // not 0: wait until the result's index differs
	Hash       string        // the same for /v1/agent/service/
	Wait       time.Duration // at most so long; 0: the daemon's default
	Stale      bool
	Cached     bool // what the daemon's host knows will do when no server answers
	Consistent bool
	Passing    bool
	Tags       []string // every one of them
	NodeMeta   map[string]string
	Filter     string
}

func (q *Query) values() url.Values {
	v := url.Values{}
	if q == nil {
		return v
	}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	flag := func(name string, on bool) {
		if on {
			v.Set(name, "1")
		}
	}
	set("dc", q.Datacenter)
	set("hash", q.Hash)
	set("filter", q.Filter)
	flag("stale", q.Stale)
	flag("cached", q.Cached)
	flag("consistent", q.Consistent)
	flag("passing", q.Passing)
	if q.Index > 0 {
		v.Set("index", strconv.FormatUint(q.Index, 10))
	}
	if q.Wait > 0 {
		v.Set("wait", strconv.FormatInt(q.Wait.Milliseconds(), 10)+"ms")
	}
	for _, t := range q.Tags {
		v.Add("tag", t)
	}
	for k, val := range q.NodeMeta {
		v.Add("node-meta", k+":"+val)
	}
	return v
}

// Meta is what an answer's headers say.
type Meta struct {
	Index       uint64 // to wait on; 0 where the endpoint has none
	Hash        string
	KnownLeader bool
	LastContact time.Duration
	Warning     string // the daemon did as asked and has a remark
	Control     string // path of the daemon's control socket, where an answer tells it
}

func metaOf(h http.Header) Meta {
	m := Meta{Hash: h.Get("X-Consul-ContentHash"), Warning: h.Get("X-Meibo-Warning"), Control: h.Get("X-Meibo-Control")}
	m.Index, _ = strconv.ParseUint(h.Get("X-Consul-Index"), 10, 64)
	m.KnownLeader, _ = strconv.ParseBool(h.Get("X-Consul-KnownLeader"))
	ms, _ := strconv.ParseInt(h.Get("X-Consul-LastContact"), 10, 64)
	m.LastContact = time.Duration(ms) * time.Millisecond
	return m
}

// Do sends one request and returns the answer whatever its status; the caller closes its
// body. The body sent is JSON unless it is nil or an io.Reader. Path is escaped already.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	reader, err := bodyOf(body)
	if err != nil {
		return nil, fmt.Errorf("encode the body of %s %s: %w", method, path, err)
	}
	u, err := url.Parse(strings.TrimSuffix(c.base.String(), "/") + path)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	all := u.Query()
	maps.Copy(all, query)
	if c.cfg.Datacenter != "" && !all.Has("dc") {
		all.Set("dc", c.cfg.Datacenter)
	}
	u.RawQuery = all.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), reader)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("X-Consul-Token", c.token)
	}
	if c.cfg.User != "" {
		req.SetBasicAuth(c.cfg.User, c.cfg.Password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its text repeats the URL
		}
		return nil, fmt.Errorf("ask %s: %w", c.Address(), err)
	}
	return resp, nil
}

func bodyOf(body any) (io.Reader, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil
	case io.Reader:
		return b, nil
	}
	data, err := json.Marshal(body)
	return bytes.NewReader(data), err
}

// Get reads path into out, a pointer, or nowhere if out is nil. Path is escaped already.
func (c *Client) Get(ctx context.Context, path string, q *Query, out any) (Meta, error) {
	return c.call(ctx, http.MethodGet, path, q.values(), nil, out)
}

// Put sends a body (see Do) and reads the answer into out, if that is not nil.
func (c *Client) Put(ctx context.Context, path string, query url.Values, body, out any) (Meta, error) {
	return c.call(ctx, http.MethodPut, path, query, body, out)
}

func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, out any) (Meta, error) {
	resp, err := c.Do(ctx, method, path, query, body)
	if err != nil {
		return Meta{}, err
	}
	defer resp.Body.Close()
	meta := metaOf(resp.Header)
	if resp.StatusCode/100 != 2 {
		return meta, errorOf(method, path, resp)
	}
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		return meta, err
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return meta, fmt.Errorf("decode the answer of %s %s from %s: %w", method, path, c.Address(), err)
	}
	return meta, nil
}

func errorOf(method, path string, resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil && len(text) == 0 {
		text = []byte(err.Error())
	}
	return &Error{Method: method, Path: path, Status: resp.StatusCode, Text: strings.TrimSpace(string(text))}
}
