// Package house holds no code, only tests: they keep the house in order.
//
// Its rules are who may import whom, where broker clients may appear, which
// types may show in a public signature, that every package has a doc.go, and
// that every file can be read in one sitting. A failure names the package and
// the rule. The rules are checked here rather than by the linter alone because
// some reach through other packages, which a linter of single files cannot see.
package house
