package kafkaserver_test

import (
	"os"
	"strings"
	"testing"

	"github.com/rowcall/rowcall/internal/kafkaserver"
)

func TestStartWithoutJarsSaysWhereTheyComeFrom(t *testing.T) {
	dir := t.TempDir()
	_, err := kafkaserver.Start(t.Context(), &kafkaserver.Options{Libs: dir, Dir: dir})
	if err == nil || !strings.Contains(err.Error(), dir+" has no jars") || !strings.Contains(err.Error(), "make test-kafka") {
		t.Errorf("Start = %v, want an error that names the directory and the remedy", err)
	}
}

func TestBrokerIsResumed(t *testing.T) {
	libs := os.Getenv(kafkaserver.LibsVariable)
	if libs == "" {
		t.Skip("no real Kafka: " + kafkaserver.LibsVariable + " names no directory with its jars; make test-kafka gets them")
	}
	s, err := kafkaserver.Start(t.Context(), &kafkaserver.Options{Libs: libs, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	first := s.PID()
	s.Kill()
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	if s.PID() == first {
		t.Errorf("the process is %d, as before", first)
	}
}
