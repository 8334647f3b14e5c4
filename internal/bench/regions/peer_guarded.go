package main

import "sync"

// A guarded is what a program does without any library.
type guarded struct {
	mu      sync.RWMutex
	seats   map[string]seat
	coaches map[int]map[string]struct{} // nil without an index
}

func openGuarded(indexed bool) (store, error) {
	s := &guarded{seats: make(map[string]seat)}
	if indexed {
		s.coaches = make(map[int]map[string]struct{})
	}
	return s, nil
}

func (s *guarded) put(key string, v seat) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(key, v)
	return nil
}

func (s *guarded) putAll(keys []string, v func(string) seat) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.putLocked(k, v(k))
	}
	return nil
}

func (s *guarded) putLocked(key string, v seat) {
	if s.coaches != nil {
		if old, ok := s.seats[key]; ok && old.Coach != v.Coach {
			delete(s.coaches[old.Coach], key)
		}
		if s.coaches[v.Coach] == nil {
			s.coaches[v.Coach] = make(map[string]struct{})
		}
		s.coaches[v.Coach][key] = struct{}{}
	}
	s.seats[key] = v
}

func (s *guarded) get(key string) (seat, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.seats[key]
	return v, ok
}

func (s *guarded) coach(n int) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found := 0
	for k := range s.coaches[n] {
		if s.seats[k].Coach == n {
			found++
		}
	}
	return found
}

// scan finds nothing: a map has no order.
func (s *guarded) scan(string, int) int { return 0 }

func (s *guarded) close() error { return nil }
