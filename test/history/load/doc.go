// Package load is what clients do in a run, and notes everything that they see: people who write and read, devices that
// race for a channel's groups and epochs, and some who claim KeyPackages. What they do is decided by a seed; when, is up to the
// machine.
package load
