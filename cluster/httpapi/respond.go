package httpapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// body is an answer that is not plain JSON with status 200.
type body struct {
	status      int
	contentType string
	data        []byte
}

func textBody(status int, text string) *body {
	return &body{status: status, contentType: "text/plain; charset=utf-8", data: []byte(text)}
}

// written is what a handler returns that has answered by itself.
var written = new(body)

// gzipFrom is the size in bytes from which an answer is compressed: one packet needs none.
const gzipFrom = 1400

// respond writes what a handler returned.
func (e *endpoints) respond(r *request, v any) {
	if r.dropped > 0 && r.scope.Token != "" {
		r.w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
	}
	b, ok := v.(*body)
	if b == written && ok {
		return
	}
	if !ok {
		data, err := encode(r, v)
		if err != nil {
			e.log.Error("encode an http answer", "path", r.URL.Path, "err", err)
			writeError(r.w, err)
			return
		}
		b = &body{status: http.StatusOK, data: data}
		if v != nil {
			b.contentType = "application/json"
		}
	}
	writeBody(r.w, r.Request, b)
}

// encode renders JSON as Consul does: indented by four spaces for ?pretty.
func encode(r *request, v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	if pretty, err := r.flag("pretty"); !pretty && err == nil {
		return json.Marshal(v)
	}
	data, err := json.MarshalIndent(v, "", "    ")
	return append(data, '\n'), err
}

func writeBody(w http.ResponseWriter, r *http.Request, b *body) {
	h := w.Header()
	ct := b.contentType
	if ct == "" {
		ct = "text/plain; charset=utf-8"
	}
	h.Set("Content-Type", ct)
	h.Set("Vary", "Accept-Encoding")
	data := b.data
	if len(data) >= gzipFrom && acceptsGzip(r) {
		data = compress(data)
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(b.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(data) // the client may be gone; nobody is left to tell
	}
}

func acceptsGzip(r *http.Request) bool {
	for _, v := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		coding, params, _ := strings.Cut(strings.TrimSpace(v), ";")
		if strings.EqualFold(coding, "gzip") || coding == "*" {
			q := strings.ReplaceAll(params, " ", "")
			return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
		}
	}
	return false
}

var gzips = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func compress(data []byte) []byte {
	var out bytes.Buffer
	z := gzips.Get().(*gzip.Writer)
	defer gzips.Put(z)
	z.Reset(&out)
	_, _ = z.Write(data) // a bytes.Buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

// writeError sends an error as Consul does: its text, plain.
func writeError(w http.ResponseWriter, err error) {
	status, text := statusOf(err)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// recorder remembers the status for metrics and for the panic handler, and gives the
// client writeTimeout to take the answer.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	r.begin(status)
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	r.begin(http.StatusOK)
	return r.ResponseWriter.Write(p)
}

func (r *recorder) begin(status int) {
	if r.status != 0 {
		return
	}
	r.status = status
	// Not every writer has deadlines (those of tests don't); then there is none.
	_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// Unwrap lets http.ResponseController reach flushing and deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
