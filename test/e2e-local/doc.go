// Package e2elocal tests clients against a real cell with a real PostgreSQL, all in one process or by the qpq program.
package e2elocal
