package main

import (
	"bytes"
	"sync"
	"testing"
)

// A page takes lines from the three services.
type page struct {
	mu sync.Mutex
	bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Buffer.Write(b)
}

func TestSaga(t *testing.T) {
	var out page
	if err := run(t.Context(), &out); err != nil {
		t.Fatalf("%v, after:\n%s", err, out.String())
	}
	const want = `Ada: requested
payment: charged Ada
Ada: paid
fleet: a seat in train 1 for Ada
Ada: booked
Bob: requested
payment: charged Bob
Bob: paid
Bob: full
payment: refunded Bob
Bob: refunded
Cid: requested
Cid: declined
Dee: requested
payment: charged Dee
Dee: paid
operator: reserve-seat is dead after 3 attempts: the depot does not answer
fleet: a seat in train 2 for Dee
Dee: booked
`
	if got := out.String(); got != want {
		t.Errorf("the story was:\n%s\nwant:\n%s", got, want)
	}
}
