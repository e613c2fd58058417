// Package resources builds what a MessagingCell becomes. Its functions are
// pure: a cell goes in, an object or a file comes out, no client is asked and
// the cell is not changed. Each builder has a file and a golden file of its
// own.
//
// Builders set neither owner references nor anything else that needs the
// cell's place in a cluster: who applies an object does.
package resources
