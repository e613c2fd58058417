// Package contract holds operator and cell together: neither imports the
// other, and what one writes the other must read. The tests take the objects
// that the operator builds, lay their files out as a kubelet would, and run the
// real cell on them.
package contract
