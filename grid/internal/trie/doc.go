// Package trie keeps entries in the order of their keys, in trees that never
// change: a transaction makes a new tree and copies only what lies on the way to
// what it changes.
//
// A tree is a qp-trie (Tony Finch, "QP tries are smaller and faster than crit-bit
// trees", 2015): each branch looks at the four bits of a key where its entries
// first differ and leads to at most 17 places, one for each value of them and one
// for keys that have ended. Branches do not store what their entries have in
// common; the key of the entry that is found tells.
//
// So a look-up compares keys once, a change copies some 200 bytes for each branch
// on its way, and any byte string can be a key, also one that begins another.
package trie
