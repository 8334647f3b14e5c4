// Command rabbitbin prints the directory of the RabbitMQ server that rowcall's
// tests would use. If there is none it says why on standard error and exits with
// status 1. The Makefile asks it what to install.
package main
