// hq-interop over quic-go. See ../README.md. It is built inside of quic-go's source tree, whose internal packages it
// uses to make the library do what an interop client has to do.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lucas-clemente/quic-go"
	"github.com/lucas-clemente/quic-go/internal/handshake"
	"github.com/lucas-clemente/quic-go/logging"
	"github.com/lucas-clemente/quic-go/qlog"
)

const (
	refused = 0x104
	enough  = 50_000
	// Number of datagrams.
	datagrams = 200
)

var testcase = os.Getenv("TESTCASE")

var clients = map[string]bool{"transfer": true, "reset": true, "multiconnect": true, "chacha20": true, "retry": true,
	"resumption": true, "zerortt": true, "keyupdate": true, "stopsending": true,
	"datagrams": true}

var servers = map[string]bool{"transfer": true, "reset": true, "multiconnect": true, "chacha20": true, "retry": true,
	"resumption": true, "zerortt": true, "keyupdate": true, "datagrams": true}

func main() {
	run, can := get, clients
	if os.Getenv("ROLE") == "server" {
		run, can = serve, servers
	}
	if !can[testcase] {
		os.Exit(127)
	}
	if testcase == "keyupdate" {
		handshake.KeyUpdateInterval = 100
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func config() *quic.Config {
	c := &quic.Config{
		MaxIdleTimeout:                 30 * time.Second,
		InitialStreamReceiveWindow:     16 << 20,
		MaxStreamReceiveWindow:         16 << 20,
		InitialConnectionReceiveWindow: 16 << 20,
		MaxConnectionReceiveWindow:     16 << 20,
		MaxIncomingStreams:             100,
		EnableDatagrams:                testcase == "datagrams",
		RequireAddressValidation:       func(net.Addr) bool { return testcase == "retry" },
	}
	if dir := os.Getenv("QLOGDIR"); dir != "" {
		c.Tracer = qlog.NewTracer(func(_ logging.Perspective, id []byte) io.WriteCloser {
			file, err := os.Create(filepath.Join(dir, fmt.Sprintf("%x.qlog", id)))
			if err != nil {
				return nopCloser{io.Discard}
			}
			return file
		})
	}
	return c
}

func tlsConfig() (*tls.Config, error) {
	alpn := os.Getenv("ALPN")
	if alpn == "" {
		alpn = "hq-interop"
	}
	c := &tls.Config{NextProtos: []string{alpn}}
	if path := os.Getenv("SSLKEYLOGFILE"); path != "" {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		c.KeyLogWriter = file
	}
	if testcase == "chacha20" {
		c.CipherSuites = []uint16{tls.TLS_CHACHA20_POLY1305_SHA256}
	}
	return c, nil
}

func say(words ...any) {
	fmt.Println(words...)
}

func serve() error {
	tlsConf, err := tlsConfig()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(os.Getenv("CERT"), os.Getenv("KEY"))
	if err != nil {
		return err
	}
	tlsConf.Certificates = []tls.Certificate{pair}
	listener, err := quic.ListenAddrEarly(os.Getenv("LISTEN"), tlsConf, config())
	if err != nil {
		return err
	}
	say("ready")
	for {
		conn, err := listener.Accept(context.Background())
		if err != nil {
			return err
		}
		if testcase == "datagrams" {
			go echo(conn)
		}
		go func() {
			for {
				stream, err := conn.AcceptStream(context.Background())
				if err != nil {
					say("closed", err)
					return
				}
				go answer(stream)
			}
		}()
	}
}

func answer(stream quic.Stream) {
	request, err := io.ReadAll(stream)
	if err != nil {
		return
	}
	path := strings.TrimRight(strings.TrimPrefix(string(request), "GET "), "\r\n ")
	body, err := os.ReadFile(filepath.Join(os.Getenv("WWW"), filepath.Clean("/"+path)))
	if err != nil {
		stream.CancelWrite(refused)
		return
	}
	if _, err := stream.Write(body); err != nil {
		say("stream", err)
	}
	stream.Close()
}

// echo sends datagrams back.
func echo(conn quic.Connection) {
	for {
		data, err := conn.ReceiveMessage()
		if err != nil {
			return
		}
		if err := conn.SendMessage(data); err != nil {
			say("datagram", err)
		}
	}
}

// bounce sends datagrams, and waits until they come back.
func bounce(conn quic.Connection) error {
	came := make(chan string, datagrams)
	go func() {
		for {
			data, err := conn.ReceiveMessage()
			if err != nil {
				return
			}
			came <- string(data)
		}
	}()
	missing := map[string]bool{}
	for n := 0; n < datagrams; n++ {
		data := append([]byte{0, byte(n)}, make([]byte, 14+n*37%1000)...)
		missing[string(data)] = true
		if err := conn.SendMessage(data); err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	for len(missing) > 0 {
		select {
		case data := <-came:
			if !missing[data] {
				return errors.New("a datagram that was not sent, or came twice")
			}
			delete(missing, data)
			continue
		case <-time.After(time.Second):
		}
		break
	}
	say("returned", datagrams-len(missing))
	if len(missing) >= datagrams/2 {
		return errors.New("too few datagrams have come back")
	}
	return nil
}

type cache struct {
	tls.ClientSessionCache
	put chan struct{}
}

func (c *cache) Put(key string, state *tls.ClientSessionState) {
	c.ClientSessionCache.Put(key, state)
	select {
	case c.put <- struct{}{}:
	default:
	}
}

func get() error {
	var server string
	var paths []string
	for _, url := range strings.Fields(os.Getenv("REQUESTS")) {
		parts := strings.SplitN(strings.TrimPrefix(url, "https://"), "/", 2)
		server, paths = parts[0], append(paths, "/"+parts[1])
	}
	tlsConf, err := tlsConfig()
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(os.Getenv("CA"))
	if err != nil {
		return err
	}
	tlsConf.RootCAs = x509.NewCertPool()
	tlsConf.RootCAs.AppendCertsFromPEM(pem)
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return err
	}
	tlsConf.ServerName = host
	sessions := &cache{tls.NewLRUClientSessionCache(1), make(chan struct{}, 1)}
	resumes := testcase == "resumption" || testcase == "zerortt"
	connections := [][]string{paths}
	if testcase == "multiconnect" {
		connections = nil
		for _, path := range paths {
			connections = append(connections, []string{path})
		}
	}
	if resumes {
		tlsConf.ClientSessionCache = sessions
		connections = [][]string{paths[:1], paths[1:]}
	}
	good := true
	for i, paths := range connections {
		conn, err := quic.DialAddrEarly(server, tlsConf, config())
		if err != nil {
			return err
		}
		if testcase != "zerortt" || i == 0 {
			select {
			case <-conn.HandshakeComplete().Done():
			case <-conn.Context().Done():
				return errors.New("no handshake")
			}
		}
		if testcase == "datagrams" {
			if err := bounce(conn); err != nil {
				return err
			}
			paths = nil
		}
		if testcase == "stopsending" {
			if err := stop(conn, paths[0]); err != nil {
				return err
			}
			paths = paths[1:]
		}
		var all sync.WaitGroup
		var lock sync.Mutex
		for _, path := range paths {
			path := path
			all.Add(1)
			go func() {
				defer all.Done()
				if err := fetch(conn, path); err != nil {
					lock.Lock()
					defer lock.Unlock()
					say("failed", path, err)
					good = false
				}
			}()
		}
		all.Wait()
		if resumes && i == 0 {
			select {
			case <-sessions.put:
			case <-time.After(5 * time.Second):
				return errors.New("no ticket")
			}
		}
		if testcase == "zerortt" && i > 0 {
			say("early", conn.ConnectionState().TLS.Used0RTT)
		}
		conn.CloseWithError(0, "")
	}
	if !good {
		return errors.New("not all files have arrived")
	}
	return nil
}

func open(conn quic.Connection, path string) (quic.Stream, error) {
	stream, err := conn.OpenStreamSync(context.Background())
	if err != nil {
		return nil, err
	}
	if _, err := stream.Write([]byte("GET " + path + "\r\n")); err != nil {
		return nil, err
	}
	return stream, stream.Close()
}

func fetch(conn quic.Connection, path string) error {
	stream, err := open(conn, path)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(os.Getenv("DOWNLOADS"), filepath.Base(path)), body, 0o644)
}

func stop(conn quic.Connection, path string) error {
	stream, err := open(conn, path)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(stream, make([]byte, enough)); err != nil {
		return err
	}
	stream.CancelRead(0x10)
	return nil
}
