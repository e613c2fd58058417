// Package peer is a client that speaks the protocol call by call, and says of each call whether it was answered: unlike a
// proper client it repeats nothing by itself.
package peer
