// Package check judges histories (package record) by porcupine models: for each there has to be an order of all
// operations, each at some moment between its call and its return, in which a cell that does one thing at a time would
// have answered the same.
//
//   - log, per channel: what was accepted stands at one sequence, gap-free in the order of acceptance, once for each delivery
//     id, and every device reads just that;
//   - cursor, per device and channel: pushes come in order and without a gap, and after a reconnect go on right behind
//     what was acknowledged, or before it, never before where an earlier subscription went on;
//   - group, per channel: one creator wins each generation, one Commit each epoch; Welcomes are the winner's;
//   - pair, per two accounts: one direct channel;
//   - packages, per device: each one-time KeyPackage is handed out for one request at most, a repeated request gets the
//     same, last resort only when there is none.
//
// A call whose outcome is unknown may have taken effect at any time after it began, or never. Where something else tells
// that it did (a push, the answer to a repetition), the models are given that; where nothing ever does, it is left out,
// which is the same as an effect that comes after everything else.
package check
