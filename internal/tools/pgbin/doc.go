// Command pgbin prints the directory of the PostgreSQL server binaries that
// rowcall and its tests would use. If there are none it says why on standard
// error and exits with status 1. The Makefile asks it what to install.
package main
