// Package e2ekind tests a cell the way its users run it: a MessagingCell
// applied to a Kubernetes cluster in which the operator is deployed, and the
// qpq program reaching it through the cell's UDP Service.
//
// The tests are built with the tag e2e and run by `make e2e`.
package e2ekind
