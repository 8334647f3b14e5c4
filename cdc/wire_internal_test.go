package cdc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// frame is a message of the server.
func frame(kind byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body))), body...)
}

// pipe returns a wire and the server's end of it. Writes to it wait for reads.
func pipe(t testing.TB) (*wire, net.Conn) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return &wire{conn: client, block: make([]byte, blockSize)}, server
}

// loopback is pipe over TCP.
func loopback(t testing.TB) (*wire, net.Conn) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	if err := server.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &wire{conn: client, block: make([]byte, blockSize)}, server
}

// serve plays the server's part on a goroutine that ends with the test.
func serve(t testing.TB, server net.Conn, play func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		err := play()
		if err != nil {
			_ = server.Close() // or the client would wait for ever
		}
		done <- err
	}()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
	})
}

func wantNext(t testing.TB, w *wire, kind byte, body string) []byte {
	t.Helper()
	k, b, err := w.next()
	if err != nil {
		t.Fatalf("next() = %v, want %q with %d bytes", err, kind, len(body))
	}
	if k != kind || string(b) != body {
		t.Fatalf("next() = %q, %d bytes %.40q; want %q, %d bytes %.40q", k, len(b), b, kind, len(body), body)
	}
	return b
}

func TestMessagesSplitAnywhere(t *testing.T) {
	stream := string(frame('d', "first")) + string(frame('Z', "")) + string(frame('d', "third"))
	for at := range len(stream) + 1 {
		w, server := pipe(t)
		serve(t, server, func() error {
			for _, part := range []string{stream[:at], stream[at:]} {
				if _, err := io.WriteString(server, part); err != nil {
					return err
				}
			}
			return server.Close()
		})
		wantNext(t, w, 'd', "first")
		wantNext(t, w, 'Z', "")
		wantNext(t, w, 'd', "third")
		if _, _, err := w.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("next() after the last message, split at %d, = %v; want %v", at, err, io.ErrUnexpectedEOF)
		}
	}
}

func TestAMessageThatEndsEarly(t *testing.T) {
	msg := frame('d', "body")
	for n := range msg {
		w, server := pipe(t)
		serve(t, server, func() error {
			_, err := server.Write(msg[:n])
			return errors.Join(err, server.Close())
		})
		if kind, body, err := w.next(); err != io.ErrUnexpectedEOF { //nolint:errorlint // as it is
			t.Errorf("next() after %d of %d bytes = %q, %q, %v; want %v", n, len(msg), kind, body, err, io.ErrUnexpectedEOF)
		}
	}
}

func TestGarbageIsNoMessage(t *testing.T) {
	for name, garbage := range map[string]string{
		"no size": "d\x00\x00\x00\x00", "size of less than itself": "d\x00\x00\x00\x03", "HTTP": "HTTP/1.1 400 Bad Request",
		"too large": "d\x40\x10\x00\x01", "negative": "d\xff\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			w, server := loopback(t)
			if _, err := io.WriteString(server, garbage); err != nil {
				t.Fatal(err)
			}
			if kind, body, err := w.next(); err == nil || !strings.Contains(err.Error(), "not the Postgres protocol") {
				t.Errorf("next() of %q = %q, %q, %v; want an error", garbage, kind, body, err)
			}
			if len(w.block) != blockSize {
				t.Errorf("next() of %q allocated %d bytes", garbage, len(w.block))
			}
		})
	}
}

// TestBodiesStay reads messages of all sizes, around that of a block and far
// above it, and compares all of them in the end.
func TestBodiesStay(t *testing.T) {
	sizes := []int{0, 1, blockSize - 6, blockSize - 5, blockSize - 4, blockSize, 3 * blockSize, 5, 1 << 20}
	for i := range 50_000 {
		sizes = append(sizes, i*7919%180)
	}
	for around := -12; around <= 12; around++ {
		sizes = append(sizes, blockSize+around, 3)
	}
	body := func(i int) string {
		return fmt.Sprintf("%d.%s", i, strings.Repeat(string(rune('a'+i%26)), sizes[i]))
	}
	w, server := loopback(t)
	serve(t, server, func() error {
		var out []byte
		random := rand.New(rand.NewPCG(3, 4))
		for i := range sizes {
			out = append(out, frame('d', body(i))...)
			if n := random.IntN(len(out) + 1); n > 60_000 {
				if _, err := server.Write(out[:n]); err != nil {
					return err
				}
				out = append([]byte{}, out[n:]...)
			}
		}
		_, err := server.Write(out)
		return errors.Join(err, server.Close())
	})
	var bodies [][]byte
	for i := range sizes {
		bodies = append(bodies, wantNext(t, w, 'd', body(i)))
	}
	for i, b := range bodies {
		if string(b) != body(i) || cap(b) != len(b) {
			t.Fatalf("message %d is now %d bytes %.40q, capacity %d; want %d bytes %.40q", i, len(b), b, cap(b), len(body(i)), body(i))
		}
	}
}

func TestInterruptEndsARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := pipe(t)
		result := make(chan error, 1)
		go func() {
			_, _, err := w.next()
			result <- err
		}()
		synctest.Wait()
		w.interrupt()
		if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("next() after interrupt() = %v, want %v", err, os.ErrDeadlineExceeded)
		}
		if _, _, err := w.next(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("another next() = %v, want %v", err, os.ErrDeadlineExceeded)
		}
	})
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, server := pipe(t)
		silent := func(when string, want bool) {
			t.Helper()
			synctest.Wait()
			if got := w.silent(30 * time.Second); got != want {
				t.Errorf("silent(30 s) %s = %t, want %t", when, got, want)
			}
		}
		<-time.After(time.Minute)
		silent("before a read", false)
		read := make(chan error, 1)
		next := func() { _, _, err := w.next(); read <- err }
		go next()
		silent("when a read begins", false)
		<-time.After(31 * time.Second)
		silent("after 31 s in a read", true)
		if _, err := server.Write(frame('d', "data")[:3]); err != nil {
			t.Fatal(err)
		}
		silent("after a part of a message", false)
		<-time.After(31 * time.Second)
		if _, err := server.Write(frame('d', "data")[3:]); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		silent("while the reader is elsewhere", false)
		go next()
		silent("when it comes back", false)
		w.interrupt()
		<-read
	})
}

// TestBurstsAreReadInFewerCalls: in a bubble time moves only while everybody
// waits, so all messages of a burst come at once.
func TestBurstsAreReadInFewerCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		w, server := pipe(t)
		serve(t, server, func() error {
			for range n {
				if _, err := server.Write(frame('d', "row")); err != nil {
					return err
				}
			}
			return nil
		})
		start := time.Now()
		for range burst {
			wantNext(t, w, 'd', "row")
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("the first %d messages of a burst took %s, want no pause", burst, got)
		}
		for range n - burst {
			wantNext(t, w, 'd', "row")
		}
		// Each write is a read here, so this is the most that pauses can cost.
		if got := time.Since(start); got < pause || got > n/burst*pause {
			t.Errorf("%d messages took %s, want pauses of %s to %s", n, got, pause, n/burst*pause)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w, server := pipe(t)
		serve(t, server, func() error {
			for range 500 {
				<-time.After(burstWindow / (burst / 2))
				if _, err := server.Write(frame('d', "row")); err != nil {
					return err
				}
			}
			return nil
		})
		for range 500 {
			wantNext(t, w, 'd', "row")
		}
		if got, want := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), 500*(burstWindow/(burst/2)); got != want {
			t.Errorf("500 messages at half the rate of a burst took %s, want %s, without a pause", got, want)
		}
	})
}

func TestStatusBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins at 2000-01-01 00:00:00 UTC, Postgres' zero
		w, server := pipe(t)
		<-time.After(0x01020304 * time.Microsecond)
		result := make(chan error, 1)
		go func() { result <- w.status(0x16_B374D848, 0x16_B374D000) }()
		got := make([]byte, 39)
		if _, err := io.ReadFull(server, got); err != nil {
			t.Fatal(err)
		}
		want := "d\x00\x00\x00\x26" + "r" +
			"\x00\x00\x00\x16\xb3\x74\xd8\x48" + // written
			"\x00\x00\x00\x16\xb3\x74\xd0\x00" + // flushed
			"\x00\x00\x00\x16\xb3\x74\xd0\x00" + // applied
			"\x00\x00\x00\x00\x01\x02\x03\x04" + "\x01"
		if string(got) != want {
			t.Errorf("status(16/B374D848, 16/B374D000) sends\n%q, want\n%q", got, want)
		}
		if err := <-result; err != nil {
			t.Errorf("status() = %v", err)
		}
	})
}

func TestStatusToAServerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := pipe(t)
		start := time.Now()
		err := w.status(1, 1)
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("status() = %v after %s, want %v after 10 s", err, time.Since(start), os.ErrDeadlineExceeded)
		}
	})
}

const errorBody = "SERROR\x00VERROR\x00C55006\x00Mreplication slot \"s\" is active for PID 42\x00Hwait\x00\x00"

func TestServerError(t *testing.T) {
	err := serverError([]byte(errorBody))
	if got := sqlState(err); got != "55006" {
		t.Errorf("sqlState(%v) = %q, want 55006", err, got)
	}
	if !strings.Contains(err.Error(), `replication slot "s" is active for PID 42`) {
		t.Errorf("serverError() = %q, want the server's message in it", err)
	}
	for n := range errorBody {
		if err := serverError([]byte(errorBody[:n])); err == nil {
			t.Errorf("serverError(%q) = nil", errorBody[:n])
		}
	}
}

const startQuery = "Q\x00\x00\x00\x7e" +
	`START_REPLICATION SLOT "s" LOGICAL 16/B374D848 (proto_version '1', publication_names '"it''s ""mine"""', messages 'true')` + "\x00"

func TestStartReplication(t *testing.T) {
	notice := string(frame('N', "SNOTICE\x00C00000\x00Mhello\x00\x00")) + string(frame('S', "TimeZone\x00UTC\x00"))
	for name, tc := range map[string]struct {
		answer string
		state  string // SQLSTATE
		err    error
	}{
		"agreed":             {answer: string(frame('W', "\x00\x00\x00"))},
		"agreed at length":   {answer: notice + string(frame('W', "\x00\x00\x00")) + string(frame('d', "data"))},
		"refused":            {answer: string(frame('E', errorBody)) + string(frame('Z', "I")), state: "55006"},
		"refused at length":  {answer: notice + string(frame('E', errorBody)), state: "55006"},
		"gone":               {answer: notice, err: io.ErrUnexpectedEOF},
		"gone in a message":  {answer: notice + "W\x00\x00", err: io.ErrUnexpectedEOF},
		"gone without words": {err: io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			w, server := loopback(t)
			serve(t, server, func() error {
				got := make([]byte, len(startQuery))
				if _, err := io.ReadFull(server, got); err != nil {
					return err
				}
				if string(got) != startQuery {
					return fmt.Errorf("received\n%q, want\n%q", got, startQuery)
				}
				_, err := io.WriteString(server, tc.answer)
				return errors.Join(err, server.Close())
			})
			err := w.startReplication(t.Context(), "s", `it's "mine"`, 0x16_B374D848)
			if got := sqlState(err); got != tc.state || (tc.state == "" && !errors.Is(err, tc.err)) {
				t.Errorf("startReplication() = %v with SQLSTATE %q; want %v, %q", err, got, tc.err, tc.state)
			}
			if name == "agreed at length" {
				wantNext(t, w, 'd', "data")
			}
		})
	}
}

func TestStartReplicationEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, server := pipe(t)
		serve(t, server, func() error {
			_, err := io.ReadFull(server, make([]byte, len(startQuery)))
			return err
		})
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		if err := w.startReplication(ctx, "s", `it's "mine"`, 0x16_B374D848); err != why { //nolint:errorlint // as it is
			t.Errorf("startReplication() = %v, want the cause %v", err, why)
		}
	})
}

func TestFinish(t *testing.T) {
	data := strings.Repeat(string(frame('d', "row")), 10_000)
	for name, tc := range map[string]struct {
		answer string
		want   error
	}{
		"at once":     {string(frame('c', "")) + string(frame('C', "COPY 0\x00")) + string(frame('Z', "I")), nil},
		"after data":  {data + string(frame('c', "")) + string(frame('C', "COPY 0\x00")) + string(frame('Z', "I")), nil},
		"gone":        {string(frame('c', "")), io.ErrUnexpectedEOF},
		"interrupted": {"interrupted", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w, server := loopback(t)
			if tc.answer == "interrupted" { // what ended the reading must not end the farewell
				tc.answer = string(frame('Z', "I"))
				w.interrupt()
				if _, _, err := w.next(); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("next() = %v, want %v", err, os.ErrDeadlineExceeded)
				}
			}
			serve(t, server, func() error {
				got := make([]byte, 5)
				if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, []byte{'c', 0, 0, 0, 4}) {
					return fmt.Errorf("received %q, %w; want CopyDone", got, err)
				}
				_, err := io.WriteString(server, tc.answer)
				return errors.Join(err, server.Close())
			})
			if err := w.finish(10 * time.Second); !errors.Is(err, tc.want) {
				t.Errorf("finish() = %v, want %v", err, tc.want)
			}
		})
	}
}

func TestFinishReadsTheRestWithoutPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, server := pipe(t)
		serve(t, server, func() error {
			if _, err := io.ReadFull(server, make([]byte, 5)); err != nil {
				return err
			}
			for range 10 * burst {
				if _, err := server.Write(frame('d', "row")); err != nil {
					return err
				}
			}
			_, err := server.Write(frame('Z', "I"))
			return err
		})
		start := time.Now()
		if err := w.finish(2 * time.Second); err != nil || time.Since(start) != 0 {
			t.Errorf("finish() = %v after %s, want nil at once", err, time.Since(start))
		}
	})
}

func TestFinishWaitsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, server := pipe(t)
		serve(t, server, func() error {
			if _, err := io.ReadFull(server, make([]byte, 5)); err != nil {
				return err
			}
			for { // a large transaction that does not end
				if _, err := server.Write(frame('d', "row")); err != nil {
					return nil //nolint:nilerr // the client has gone
				}
				<-time.After(time.Millisecond)
			}
		})
		start := time.Now()
		err := w.finish(2 * time.Second)
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 2*time.Second {
			t.Errorf("finish(2 s) = %v after %s, want %v after 2 s", err, time.Since(start), os.ErrDeadlineExceeded)
		}
		w.close()
	})
}

// A memory is a connection that never ends.
type memory struct {
	net.Conn

	data []byte
	at   int
}

func (m *memory) Read(p []byte) (int, error) {
	n := copy(p, m.data[m.at:])
	m.at = (m.at + n) % len(m.data)
	return n, nil
}

func BenchmarkNext(b *testing.B) {
	data := bytes.Repeat(frame('d', strings.Repeat("x", 150)), 2000)
	w := &wire{conn: &memory{data: data}, block: make([]byte, blockSize)}
	b.SetBytes(155)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := w.next(); err != nil {
			b.Fatal(err)
		}
		w.messages = 0 // no pauses
	}
}
