// Package interop holds scenarios in which our MLS engine and another one are
// members of the same groups, in both directions: ours acts and theirs follows, and
// the other way round. Its subpackages are the engines' adapters (ours, mlsgo,
// tsmls), each peer's with the test that runs all scenarios against it, and the
// benchmarks of all three (bench).
//
// After each step that changes an epoch all members, of both engines, must agree on
// the epoch, the epoch authenticator, an exported secret and the list of members.
//
// What a peer cannot do, or does otherwise than RFC 9420 says, is a row of the table
// in README.md like what it can: the tests make that table and compare it.
package interop
