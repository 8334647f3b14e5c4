package main

import (
	"context"
	"fmt"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

type region struct {
	*grid.Region[string, seat]

	g       *grid.Grid
	coaches *grid.Index[string, seat, int] // nil without an index
	subs    []*listeners.Subscription
}

func openRegion(indexed bool) (*region, error) {
	s := &region{g: grid.New("bench", nil)}
	var err error
	if s.Region, err = grid.Open[string, seat](s.g, "seats", nil); err != nil {
		return nil, err
	}
	if indexed {
		s.coaches, err = grid.NewIndex(s.Region, "coach", func(_ string, v seat) (int, bool) { return v.Coach, true }, nil)
	}
	return s, err
}

// listen adds listeners that decode what they hear and do nothing with it.
func (s *region) listen(n int) error {
	for i := range n {
		sub, err := s.Subscribe(fmt.Sprint("listener ", i), listeners.Handlers[seat]{
			OnCreate: func(context.Context, listeners.Change[seat]) error { return nil },
			OnUpdate: func(context.Context, listeners.Change[seat]) error { return nil },
		}, nil)
		if err != nil {
			return err
		}
		s.subs = append(s.subs, sub)
	}
	return nil
}

// heard waits until every listener has heard everything.
func (s *region) heard() error {
	at := s.Position()
	for _, sub := range s.subs {
		if err := sub.Wait(context.Background(), at); err != nil {
			return err
		}
	}
	return nil
}

func (s *region) put(key string, v seat) error {
	_, err := s.Put(context.Background(), key, v)
	return err
}

func (s *region) putAll(keys []string, v func(string) seat) error {
	_, err := s.PutAll(context.Background(), func(yield func(string, seat) bool) {
		for _, k := range keys {
			if !yield(k, v(k)) {
				return
			}
		}
	})
	return err
}

func (s *region) get(key string) (seat, bool) { return s.Get(key) }

func (s *region) coach(n int) int {
	found := 0
	for _, v := range s.coaches.Equal(n) {
		if v.Coach == n {
			found++
		}
	}
	return found
}

func (s *region) scan(from string, n int) int {
	found := 0
	for _, v := range s.From(from) {
		if v.Class != "" {
			found++
		}
		if found == n {
			break
		}
	}
	return found
}

func (s *region) close() error { return s.g.Close(context.Background()) }
