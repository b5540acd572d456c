package leaderservice

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo answers with what it was sent, and counts.
func echo(runs *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(body)
	}
}

// bodies are a request's, of each kind.
func bodies(text string) map[string]func() *http.Request {
	return map[string]func() *http.Request{
		"none":      func() *http.Request { return request(http.MethodPost, nil) },
		"of a size": func() *http.Request { return request(http.MethodPost, strings.NewReader(text)) },
		"in chunks": func() *http.Request { return request(http.MethodPost, io.NopCloser(strings.NewReader(text))) },
		"on request": func() *http.Request {
			r := request(http.MethodPost, strings.NewReader(text))
			r.Header.Set("Expect", "100-continue")
			return r
		},
	}
}

func TestARequestWaitsForALeaderThatCannotBeReachedYetWhateverItsBody(t *testing.T) {
	text := strings.Repeat("1234567890", 100_000)
	for kind, make := range bodies(text) {
		t.Run(kind, func(t *testing.T) {
			inNetwork(t, func(n *network) {
				var runs atomic.Int64
				s := n.standby("10.0.0.2")
				s.leads("pod-1", "10.0.0.1")
				time.AfterFunc(306*time.Millisecond, func() { n.serve("10.0.0.1:8080", echo(&runs)) })
				code, answer := n.send("10.0.0.2", make())
				require.Equal(n, http.StatusOK, code, answer)
				require.Equal(n, int64(1), runs.Load())
				if kind != "none" {
					require.Equal(n, text, answer)
				}
			})
		})
	}
}

// The leader leads no more when the request arrives, and some of the body is gone.
func TestOnceALeaderHasAnsweredARequestWithABodyIsNotSentAgain(t *testing.T) {
	for kind, make := range bodies(strings.Repeat("1234567890", 100)) {
		t.Run(kind, func(t *testing.T) {
			inNetwork(t, func(n *network) {
				var refusals, runs atomic.Int64
				n.serve("10.0.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					refusals.Add(1)
					w.Header().Set(notLeader, r.Header.Get(forwardedBy))
					w.WriteHeader(http.StatusServiceUnavailable)
				}))
				n.serve("10.0.0.3:8080", echo(&runs))
				s := n.standby("10.0.0.2")
				s.leads("pod-1", "10.0.0.1")
				time.AfterFunc(20*time.Millisecond, func() { s.leads("pod-3", "10.0.0.3") })
				code, answer := n.send("10.0.0.2", make())
				if kind == "none" || kind == "on request" { // it was not asked for
					require.Equal(n, http.StatusOK, code, answer)
					require.Equal(n, int64(1), runs.Load())
					return
				}
				require.Equal(n, http.StatusServiceUnavailable, code, answer)
				require.Equal(n, int64(1), refusals.Load())
				require.Zero(n, runs.Load())
			})
		})
	}
}

func TestARequestThatWasSentIsNotSentAgainWhenTheConnectionBreaks(t *testing.T) {
	untrusted := certificate(t)
	for _, scheme := range []string{"http", "https"} {
		for kind, make := range bodies("1234567890") {
			t.Run(scheme+", body: "+kind, func(t *testing.T) {
				inNetwork(t, func(n *network) {
					var runs atomic.Int64
					breaks := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						runs.Add(1)
						_, _ = io.ReadAll(r.Body)
						panic(http.ErrAbortHandler)
					})
					s := n.standby("10.0.0.2", func(o *Options) {
						o.Scheme = scheme
						o.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
					})
					if scheme == "http" {
						n.serve("10.0.0.1:8080", breaks)
					} else {
						n.serve("10.0.0.1:8080", breaks, untrusted)
					}
					s.leads("pod-1", "10.0.0.1")
					code, answer := n.send("10.0.0.2", make())
					require.Equal(n, http.StatusBadGateway, code)
					require.Contains(n, answer, "may have been carried out")
					require.Equal(n, int64(1), runs.Load())
					require.Equal(n, 1, s.log.count("The connection to the leader broke"))
				})
			})
		}
	}
}

// With HTTPS, nothing is sent before both sides have agreed on a connection.
func TestACertificateThatIsNotTrustedIsSaidAndLoggedOnceAMinute(t *testing.T) {
	untrusted := certificate(t)
	for kind, make := range bodies("1234567890") {
		t.Run(kind, func(t *testing.T) {
			inNetwork(t, func(n *network) {
				var runs atomic.Int64
				n.serve("10.0.0.1:8080", echo(&runs), untrusted)
				s := n.standby("10.0.0.2", func(o *Options) { o.Scheme = "https" })
				s.leads("pod-1", "10.0.0.1")
				for minute := range 2 {
					for range 10 {
						code, answer := n.send("10.0.0.2", make())
						require.Equal(n, http.StatusServiceUnavailable, code, answer)
						require.Contains(n, answer, "the certificate of the leader, pod-1, is not trusted")
					}
					require.Equal(n, minute+1, s.log.count("certificate is not trusted"), s.log.all())
					require.Contains(n, s.log.all(), "x509")
					require.Contains(n, s.log.all(), "10.0.0.1:8080")
					time.Sleep(logInterval)
				}
				require.Zero(n, runs.Load())

				n.remove("10.0.0.1:8080")
				n.serve("10.0.0.1:8080", echo(&runs)) // without TLS
				code, answer := n.send("10.0.0.2", make())
				require.Equal(n, http.StatusServiceUnavailable, code, answer)
				require.Equal(n, 1, s.log.count("cannot be reached"), s.log.all())
				require.Zero(n, runs.Load())
			})
		})
	}
}

func TestOverHTTP2ItIsTheSame(t *testing.T) {
	untrusted := certificate(t)
	inNetwork(t, func(n *network) {
		var protocol string
		s := n.standby("10.0.0.2", func(o *Options) {
			o.Scheme = "https"
			o.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		})
		s.leads("pod-1", "10.0.0.1")
		time.AfterFunc(306*time.Millisecond, func() {
			n.serve("10.0.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				protocol = r.Proto
				_, _ = io.Copy(w, r.Body)
			}), untrusted)
		})
		for range 2 {
			code, answer := n.send("10.0.0.2", request(http.MethodPost, strings.NewReader("x")))
			require.Equal(n, http.StatusOK, code, answer)
			require.Equal(n, "x", answer)
			require.Equal(n, "HTTP/2.0", protocol)
		}
	})
}

func TestTheTrailerOfARequestIsPassedOn(t *testing.T) {
	inNetwork(t, func(n *network) {
		var got http.Header
		n.serve("10.0.0.1:8080", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			got = r.Trailer
		}))
		s := n.standby("10.0.0.2")
		s.leads("pod-1", "10.0.0.1")
		r := request(http.MethodPost, io.NopCloser(strings.NewReader("text")))
		r.Trailer = http.Header{"X-Sum": {"1"}}
		code, answer := n.send("10.0.0.2", r)
		require.Equal(n, http.StatusOK, code, answer)
		require.Equal(n, http.Header{"X-Sum": {"1"}}, got)
	})
}

func TestEachPartOfAnAnswerIsPassedOnWhenItComes(t *testing.T) {
	inNetwork(t, func(n *network) {
		n.serve("10.0.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5") // which a proxy keeps back
			for i := range 5 {
				fmt.Fprint(w, i)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
			}
		}))
		s := n.standby("10.0.0.2")
		s.leads("pod-1", "10.0.0.1")
		conn, err := n.dial(n.Context(), "tcp", "10.0.0.2:8080")
		require.NoError(n, err)
		defer conn.Close()
		begin := time.Now()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(n, err)
		for i := range 5 {
			part := make([]byte, 1)
			_, err := io.ReadFull(resp.Body, part)
			require.NoError(n, err)
			require.Equal(n, fmt.Sprint(i), string(part))
			require.Less(n, time.Since(begin), time.Duration(i)*time.Second+100*time.Millisecond)
		}
	})
}

func TestAConnectionThatWasUpgradedAtTheLeaderEndsWhenAnotherLeads(t *testing.T) {
	inNetwork(t, func(n *network) {
		ended := make(chan struct{})
		n.serve("10.0.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			defer close(ended)
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_, _ = io.Copy(conn, buf)
		}))
		s := n.standby("10.0.0.2")
		s.leads("pod-1", "10.0.0.1")
		conn, err := n.dial(n.Context(), "tcp", "10.0.0.2:8080")
		require.NoError(n, err)
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		require.NoError(n, err)
		require.Equal(n, http.StatusSwitchingProtocols, resp.StatusCode)
		fmt.Fprintln(conn, "hello")
		line, err := in.ReadString('\n')
		require.NoError(n, err)
		require.Equal(n, "hello\n", line)
		time.Sleep(time.Minute)

		s.leads("pod-3", "10.0.0.3")
		begin := time.Now()
		_, err = in.ReadByte()
		require.ErrorIs(n, err, io.EOF)
		<-ended
		require.LessOrEqual(n, time.Since(begin), watchInterval)
	})
}

func TestABodyIsReadByOnePassageOnly(t *testing.T) {
	b := &body{ReadCloser: io.NopCloser(bytes.NewBufferString("text"))}
	require.NoError(t, b.Close())
	require.True(t, b.takeBack())
	_, err := b.Read(make([]byte, 1))
	require.ErrorIs(t, err, http.ErrBodyReadAfterClose)

	b = &body{ReadCloser: io.NopCloser(bytes.NewBufferString("text"))}
	_, err = fmt.Fscanf(b, "t")
	require.NoError(t, err)
	require.False(t, b.takeBack())
}
