// Package controllers makes a cluster what its MessagingCells ask for.
//
// Reconcile walks an ordered list of phases. Each phase applies the objects of
// one concern, looks at what became of them and says so in a condition; all
// run, also when an earlier one failed, and those that need what an earlier
// one could not give say that they wait. The status is written once at the
// end, and before the phases when the spec is new.
//
// What is made by the cell is owned by it and goes with it. Secrets and the
// database's volume are not: they carry the cell's labels and are adopted when
// a cell of the same name is applied again.
//
// The operator never writes a spec, keeps no content of Secrets in its cache,
// and writes nothing when nothing is to be changed.
package controllers
