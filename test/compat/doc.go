// Package compat holds releases against the one before: the previous release's cell serves on this release's schema, beside
// this release's cell, as it does in the middle of an upgrade and after one was taken back.
//
// PREVIOUS names the commit of the previous release. Its cell is built once, outside the checkout, from the repository's
// history; in a clone without that the tests say NOT RUN.
package compat
