package delivery

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"quicproquo.dev/schema/ids"
)

// share divides a queue's room among accounts: one that has something in it may have as much as is left free for others,
// so that one alone fills half of it, two a third each, and whoever comes next always finds room. Nothing is set aside
// while there is no crowd.
type share struct {
	maxMessages int
	maxBytes    int64
	bytes       prometheus.Gauge

	mu    sync.Mutex
	total holding
	held  map[ids.ID]holding
}

type holding struct {
	messages int
	bytes    int64
}

func newShare(messages int, size int64, gauge prometheus.Gauge) *share {
	return &share{maxMessages: messages, maxBytes: size, bytes: gauge, held: map[ids.ID]holding{}}
}

// take reserves room for one message. full: there is none at all; else the refusal is for this account alone.
func (s *share) take(account ids.ID, size int64) (ok, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total, mine := s.total.plus(1, size), s.held[account].plus(1, size)
	freeMessages, freeBytes := s.maxMessages-total.messages, s.maxBytes-total.bytes
	if freeMessages < 0 || freeBytes < 0 {
		return false, true
	}
	if mine.messages > 1 && (mine.messages > freeMessages || mine.bytes > freeBytes) {
		return false, false
	}
	s.total, s.held[account] = total, mine
	s.bytes.Set(float64(total.bytes))
	return true, false
}

// give returns the room of one message.
func (s *share) give(account ids.ID, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total = s.total.plus(-1, -size)
	if mine := s.held[account].plus(-1, -size); mine.messages > 0 {
		s.held[account] = mine
	} else {
		delete(s.held, account)
	}
	s.bytes.Set(float64(s.total.bytes))
}

func (h holding) plus(messages int, size int64) holding {
	return holding{h.messages + messages, h.bytes + size}
}
