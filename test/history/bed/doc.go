//go:build linux

// Package bed is what a run is made on: a PostgreSQL, cells as processes of their own over it, and a lossy network before
// each; and what is done to them.
package bed
