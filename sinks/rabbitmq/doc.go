// Package rabbitmq keeps commands in RabbitMQ.
package rabbitmq
