// Package child runs a program as a child that one goroutine owns from its start
// to its reaping, so that it can die with this process.
//
// It promises that a parent-death signal which the command asks for comes when
// this process ends and not before, and that the child is reaped. Who starts a
// child ends it and waits for Exited. How a child that is asked to end does so is
// not its concern.
package child
