package rabbitmq_test

import (
	"strings"
	"testing"

	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// A password that should have been percent-encoded may end the address early;
// what follows must not be taken for a vhost, since those are shown.
func TestAPasswordInAWrongURLIsNotShown(t *testing.T) {
	t.Parallel()
	for _, u := range []string{
		"amqp://app:12/hunter2@localhost/shop",
		"amqp://app:p@x/hunter2@localhost/shop",
		"amqp://app:p/hunter2@localhost",
		"amqp://app:12%zz/hunter2@localhost",
		"amqp://app:hun[ter2/hunter2@localhost",
	} {
		c, err := rabbitmq.NewConnector(u, nil)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("NewConnector(%s) = %v; want an error without the password", u, err)
		}
		if c != nil {
			c.Close()
		}
	}
	for u, want := range map[string]string{
		"amqp://app:p%40x%2Fhunter2@localhost/shop": "localhost:5672/shop",
		"amqp://localhost/a%40b":                    "localhost:5672/a@b",
		"amqp://app:12?hunter2@localhost":           "", // the rest is a query, which nothing shows
	} {
		c, err := rabbitmq.NewConnector(u, nil)
		if err != nil {
			if want != "" || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("NewConnector(%s) = %v", u, err)
			}
			continue
		}
		if got := c.Server(); want != "" && got != want || strings.Contains(got, "hunter2") {
			t.Errorf("Server() of %s = %q, want %q", u, got, want)
		}
		c.Close()
	}
}
