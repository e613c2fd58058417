package controllers

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// memory is what the reconciler remembers about cells between passes. It is a
// cache: losing it costs questions. The zero value is ready for use.
type memory struct {
	mu    sync.Mutex
	cells map[types.NamespacedName]remembered
}

type remembered struct {
	// written is the resource version of the status that was written last.
	written string
	// seen is what servers were last seen to use, by their pods.
	seen map[types.UID]sighting
	// durability is what a server said last of the database's settings.
	durability durability
}

func (m *memory) recall(cell types.NamespacedName) remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cells[cell]
}

func (m *memory) change(cell types.NamespacedName, change func(*remembered)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cells == nil {
		m.cells = map[types.NamespacedName]remembered{}
	}
	r := m.cells[cell]
	change(&r)
	m.cells[cell] = r
}

func (m *memory) forget(cell types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cells, cell)
}

// outdated reports whether a cell was read from a cache that has not yet seen
// the status we wrote: decisions that rest on it would be taken twice.
func (m *memory) outdated(cell types.NamespacedName, version string) bool {
	written := m.recall(cell).written
	if written == "" {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(version, written)
	return err != nil || order < 0
}
