// Package pgserver runs throw-away PostgreSQL clusters from the server
// binaries that are installed on this machine.
//
// [Start] creates a cluster with initdb in a directory of its own, with
// wal_level=logical, and runs its postmaster as a child of this process. The
// cluster listens on a port of 127.0.0.1 and on a Unix socket, nowhere else.
// [Server.Stop] ends it and removes its directory.
//
// # What is promised
//
//   - When Start returns, the cluster accepts connections on both addresses.
//   - When Stop returns, no process of the cluster is left, and the directory is
//     gone unless [Options].Keep is set.
//   - A restart keeps the port, the directory and everything that was committed,
//     in either [Mode].
//   - On Linux the cluster dies with this process, even with one that is killed
//     by SIGKILL. Its directory is then left behind; the next Start in the same
//     temporary directory removes it.
//
// # What is not
//
//   - Safety from other users of the machine: authentication is "trust", so
//     everyone who can connect to 127.0.0.1 here is superuser of the cluster
//     while it runs. Keep nothing in it that matters.
//   - Durability against a crash of the operating system, unless [Options].Fsync
//     is set.
//   - Death with the parent on other systems than Linux.
//
// # Root
//
// PostgreSQL refuses to run as root. Where this process is root, the cluster
// runs as the user postgres, or nobody where there is no such user, and owns its
// directories.
package pgserver
