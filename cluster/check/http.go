package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// userAgent is what services that recognise Consul's checks look for.
const userAgent = "Consul Health Check"

// httpProber asks a URL: 2xx is passing, 429 warning, all else critical.
type httpProber struct {
	def    *Definition
	client *http.Client
}

func newHTTPProber(d *Definition, t *TLS) (*httpProber, error) {
	p := &httpProber{def: d, client: &http.Client{Transport: &http.Transport{
		Proxy:                  nil, // a check is about this target, not about a proxy
		DialContext:            dialer().DialContext,
		DisableKeepAlives:      true, // a new connection is part of what is checked
		TLSClientConfig:        tlsConfig(d, "", t),
		MaxResponseHeaderBytes: 64 << 10,
	}}}
	if d.DisableRedirects {
		p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return p, nil
}

// errScheme is of a URL that nobody can be asked by. Consul takes such a check, which
// then always fails; so do we.
var errScheme = errors.New("HTTP check URL must begin with http:// or https:// and a host")

// httpRequest makes the request of one run, or says what is wrong with it.
func (d *Definition) httpRequest() (*http.Request, error) {
	u, err := url.Parse(d.HTTP)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errScheme, err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%w: %q", errScheme, d.HTTP)
	}
	method := d.Method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequest(method, d.HTTP, strings.NewReader(d.Body))
	if err != nil {
		return nil, fmt.Errorf("HTTP check: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Header)) {
		if name == "" || strings.ContainsAny(name, " \r\n:") {
			return nil, fmt.Errorf("HTTP check header name %q is invalid", name)
		}
		for _, value := range d.Header[name] {
			if strings.ContainsAny(value, "\r\n\x00") {
				return nil, fmt.Errorf("HTTP check header %q has a line break in its value", name)
			}
			req.Header.Add(name, value)
		}
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", userAgent)
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "text/plain, text/*, */*")
	}
	return req, nil
}

func (p *httpProber) probe(ctx context.Context) (status, output string) {
	req, err := p.def.httpRequest()
	if err != nil {
		return Critical, err.Error()
	}
	resp, err := p.client.Do(req.WithContext(ctx))
	if err != nil {
		return Critical, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(p.def.outputSize())))
	output = fmt.Sprintf("HTTP %s %s: %s Output: %s", req.Method, p.def.HTTP, resp.Status, body)
	if err != nil {
		// A server that can't end its answer does not work, whatever it began with.
		return Critical, fmt.Sprintf("%s (reading the body: %v)", output, err)
	}
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode <= 299:
		return Passing, output
	case resp.StatusCode == http.StatusTooManyRequests:
		return Warning, output
	}
	return Critical, output
}
