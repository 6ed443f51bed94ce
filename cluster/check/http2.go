package check

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// h2pingProber sends an HTTP/2 PING and waits for its answer.
type h2pingProber struct {
	def  *Definition
	more *TLS
}

func (p *h2pingProber) probe(ctx context.Context) (status, output string) {
	if err := p.ping(ctx); err != nil {
		return Critical, fmt.Sprintf("HTTP2 ping to %s failed: %v", p.def.H2PING, err)
	}
	return Passing, "HTTP2 ping was successful"
}

func (p *h2pingProber) ping(ctx context.Context) error {
	conn, err := dialer().DialContext(ctx, "tcp", p.def.H2PING)
	if err != nil {
		return err
	}
	defer conn.Close()
	if p.def.H2PingUseTLS == nil || *p.def.H2PingUseTLS {
		cfg := tlsConfig(p.def, hostOf(p.def.H2PING), p.more)
		cfg.NextProtos = []string{http2.NextProtoTLS}
		secured := tls.Client(conn, cfg)
		if err := secured.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS handshake: %w", err)
		}
		if got := secured.ConnectionState().NegotiatedProtocol; got != http2.NextProtoTLS {
			return fmt.Errorf("server does not speak HTTP/2 (ALPN %q)", got)
		}
		conn = secured
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := exchangePing(conn); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

// maxFrames is how many frames a server may send before the answer to a PING
// that follows its preface: settings, a window update, and a few to spare.
const maxFrames = 64

// exchangePing begins HTTP/2 on conn, sends one PING, and reads until its
// answer comes. (RFC 9113 sections 3.4 and 6.7)
func exchangePing(conn net.Conn) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	framer.SetMaxReadFrameSize(16 << 10)
	var sent [8]byte
	rand.Read(sent[:])
	if err := errors.Join(framer.WriteSettings(), framer.WritePing(false, sent)); err != nil {
		return err
	}
	for range maxFrames {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.PingFrame:
			if frame.IsAck() && frame.Data == sent {
				return nil
			}
		case *http2.GoAwayFrame:
			return fmt.Errorf("server goes away: %v", frame.ErrCode)
		}
	}
	return errors.New("server sends anything but the answer")
}

// grpcProber asks the standard health service, grpc.health.v1.Health/Check,
// by hand: its messages have one field each, and the gRPC library would cost
// megabytes. (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/health-checking.md)
type grpcProber struct {
	def     *Definition
	host    string
	service string // empty: the server as a whole
	client  *http.Client
}

func newGRPCProber(d *Definition, t *TLS) *grpcProber {
	p := &grpcProber{def: d}
	p.host, p.service, _ = strings.Cut(d.GRPC, "/")
	var protocols http.Protocols
	protocols.SetHTTP2(d.GRPCUseTLS)
	protocols.SetUnencryptedHTTP2(!d.GRPCUseTLS)
	p.client = &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer().DialContext,
			TLSClientConfig:        tlsConfig(d, "", t),
			Protocols:              &protocols,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p
}

func (p *grpcProber) probe(ctx context.Context) (status, output string) {
	if err := p.call(ctx); err != nil {
		return Critical, fmt.Sprintf("gRPC check %s: %v", p.def.GRPC, err)
	}
	return Passing, fmt.Sprintf("gRPC check %s: success", p.def.GRPC)
}

// call returns nil if the server says SERVING.
func (p *grpcProber) call(ctx context.Context) error {
	scheme := "http"
	if p.def.GRPCUseTLS {
		scheme = "https"
	}
	target := url.URL{Scheme: scheme, Host: p.host, Path: "/grpc.health.v1.Health/Check"}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(healthRequest(p.service)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	req.Header.Set("User-Agent", userAgent)
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP status %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealthResponse+1))
	if err != nil {
		return err
	}
	if len(body) > maxHealthResponse {
		return errors.New("health response is too long")
	}
	if err := grpcStatus(resp); err != nil {
		return err
	}
	return parseHealthResponse(body)
}

// maxHealthResponse is far above the seven bytes that a health response has.
const maxHealthResponse = 4096

// grpcStatus reads the outcome of the call, which is in the trailers, or in the
// headers where there was no message.
func grpcStatus(resp *http.Response) error {
	code, message := resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	if code == "" {
		code, message = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	}
	switch code {
	case "0":
		return nil
	case "":
		return errors.New("server does not speak gRPC: no grpc-status")
	case "5":
		return fmt.Errorf("service is not known to the server (grpc-status 5 %s)", message)
	case "12":
		return fmt.Errorf("server has no health service (grpc-status 12 %s)", message)
	}
	return fmt.Errorf("grpc-status %s %s", code, message)
}

// healthRequest is a length-prefixed HealthCheckRequest: field 1, the service.
func healthRequest(service string) []byte {
	var msg []byte
	if service != "" {
		msg = append(msg, 1<<3|2)
		msg = binary.AppendUvarint(msg, uint64(len(service)))
		msg = append(msg, service...)
	}
	frame := make([]byte, 5, 5+len(msg))
	binary.BigEndian.PutUint32(frame[1:], uint32(len(msg)))
	return append(frame, msg...)
}

// servingStatus names the values of HealthCheckResponse.ServingStatus.
var servingStatus = map[uint64]string{0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

// parseHealthResponse returns nil for a length-prefixed HealthCheckResponse
// whose field 1 says SERVING. Fields it does not know are skipped.
func parseHealthResponse(frame []byte) error {
	if len(frame) < 5 {
		return errors.New("health response is cut short")
	}
	if frame[0] != 0 {
		return errors.New("health response is compressed, which was not asked for")
	}
	msg := frame[5:]
	if n := binary.BigEndian.Uint32(frame[1:]); uint64(n) != uint64(len(msg)) {
		return fmt.Errorf("health response has %d bytes, its prefix says %d", len(msg), n)
	}
	status, err := healthStatus(msg)
	if err != nil {
		return err
	}
	if status != 1 {
		name := servingStatus[status]
		if name == "" {
			name = fmt.Sprint(status)
		}
		return fmt.Errorf("health status is %s", name)
	}
	return nil
}

var errHealthMessage = errors.New("health response is not a protobuf message")

// healthStatus finds field 1, a varint, in a protobuf message; 0 if absent.
func healthStatus(msg []byte) (status uint64, err error) {
	for len(msg) > 0 {
		key, n := binary.Uvarint(msg)
		if n <= 0 || key>>3 == 0 {
			return 0, errHealthMessage
		}
		msg = msg[n:]
		switch key & 7 {
		case 0:
			value, n := binary.Uvarint(msg)
			if n <= 0 {
				return 0, errHealthMessage
			}
			if key>>3 == 1 {
				status = value
			}
			msg = msg[n:]
		case 1, 5:
			size := 8
			if key&7 == 5 {
				size = 4
			}
			if len(msg) < size {
				return 0, errHealthMessage
			}
			msg = msg[size:]
		case 2:
			size, n := binary.Uvarint(msg)
			if n <= 0 || size > uint64(len(msg)-n) {
				return 0, errHealthMessage
			}
			msg = msg[n+int(size):]
		default:
			return 0, errHealthMessage
		}
	}
	return status, nil
}
