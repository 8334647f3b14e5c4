// Package rabbitserver runs throw-away RabbitMQ nodes from the server that is
// installed on this machine, for tests.
//
// [Start] runs a node as a child of this process, with a directory, a name and
// ports of its own, on 127.0.0.1 alone. A running RabbitMQ of the system is
// neither used nor touched: the node has a port mapper (epmd) and a cookie of
// its own, and reads no configuration under /etc.
//
// When Start returns, the node takes AMQP connections of the user guest. When
// [Server.Stop] returns, no process of the node is left, and its directory is
// gone. [Server.Kill] is a crash, and [Server.Resume] starts the node again with
// what it has stored. On Linux the node dies with this process.
//
// It runs as the user of this process, root or not. Package rabbittest shares
// one node among the tests of a binary: a start takes 5 to 10 seconds.
package rabbitserver
